"""Workers, tasks and figures: what the instance consists of and does, for dashboards and scripts.

Whether a worker is online is the keeper's judgement. Counts are exact and cost no scan.
"""

from typing import Annotated

import msgspec
from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from celeriac import clock
from celeriac.clock import rfc3339
from celeriac.ledger import Ledger, read
from celeriac.ledger.counts import MINUTE
from celeriac.ledger.stats import Stats, stats
from celeriac.states import FINAL, State
from celeriac.web.api import PREFIX
from celeriac.web.api.jobs import answer
from celeriac.web.api.queries import NoQuery, StatsQuery
from celeriac.web.api.queues import QueueShape, queue_shapes
from celeriac.web.api.shapes import TaskPage, WorkerPage, task_shape, worker_shape
from celeriac.web.site import caller, site


class EndingsShape(msgspec.Struct):
    """How many jobs came to which end within the minute that begins at `at`."""

    at: str | None
    succeeded: int
    failed: int
    cancelled: int


class StatsShape(msgspec.Struct):
    """The instance at a glance. `slots` jobs can run at a time; `endings` has a row for every minute, oldest first."""

    counts: dict[str, int]
    workers_online: int
    slots: int
    running: int
    rate_per_second: float
    queues: list[QueueShape]
    endings: list[EndingsShape]


def add(app: FastAPI) -> None:
    """Add the routes."""
    app.get(f"{PREFIX}/workers")(workers)
    app.get(f"{PREFIX}/tasks")(tasks)
    app.get(f"{PREFIX}/stats")(figures)


def workers(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the workers, the living first."""
    return answer(WorkerPage([worker_shape(worker) for worker in read.all_workers(site(request).ledger)]))


def tasks(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the tasks that you can submit, with the JSON schema of their arguments."""
    may_run = caller(request).may_run
    return answer(TaskPage([task_shape(task) for task in site(request).tasks.infos if may_run(task.name)]))


def figures(request: Request, query: Annotated[StatsQuery, Query()]) -> Response:
    """Look at the whole instance: counts, queues, workers, and how many jobs ended in each of the last minutes."""
    ledger = site(request).ledger
    return answer(_shape(ledger, stats(ledger, caller(request), query.minutes), query.minutes))


def _shape(ledger: Ledger, seen: Stats, minutes: int) -> StatsShape:
    newest = clock.micros() // MINUTE
    rows = {minute * MINUTE: dict.fromkeys(FINAL, 0) for minute in range(newest - minutes + 1, newest + 1)}
    for minute, state, jobs in seen.endings:
        rows.setdefault(minute, dict.fromkeys(FINAL, 0))[State(state)] = jobs
    endings = [
        EndingsShape(rfc3339(minute), row[State.SUCCEEDED], row[State.FAILED], row[State.CANCELLED])
        for minute, row in sorted(rows.items())
    ]
    return StatsShape(
        seen.counts, seen.workers_online, seen.slots, seen.running, seen.rate_per_second,
        queue_shapes(ledger, seen.queues), endings,
    )  # fmt: skip
