"""Queues, workers and tasks: what the instance consists of, for people and for scripts.

Counts are exact and cost no scan. Whether a worker is online is the keeper's judgement.
"""

from typing import Annotated

from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from celeriac.ledger import read
from celeriac.web.api import PREFIX
from celeriac.web.api.jobs import answer
from celeriac.web.api.queries import NoQuery
from celeriac.web.api.shapes import QueuePage, TaskPage, WorkerPage, queue_shape, task_shape, worker_shape
from celeriac.web.site import site


def add(app: FastAPI) -> None:
    """Add the routes."""
    app.get(f"{PREFIX}/queues")(queues)
    app.get(f"{PREFIX}/workers")(workers)
    app.get(f"{PREFIX}/tasks")(tasks)


def queues(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the queues with the number of jobs in each state."""
    return answer(QueuePage([queue_shape(queue) for queue in read.all_queues(site(request).ledger)]))


def workers(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the workers, the living first."""
    return answer(WorkerPage([worker_shape(worker) for worker in read.all_workers(site(request).ledger)]))


def tasks(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the tasks that can be submitted, with the JSON schema of their arguments."""
    return answer(TaskPage([task_shape(task) for task in site(request).tasks.infos]))
