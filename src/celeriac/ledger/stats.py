"""The state of an instance at a glance: what waits, what runs, who works, and how fast jobs end.

Asked by dashboards every few seconds, so nothing here looks at a job that has ended: counts are
kept (counts.py), and endings were added up by the minute when the keeper folded them.
"""

from dataclasses import dataclass

from celeriac import clock
from celeriac.access import Permission, Principal
from celeriac.errors import Forbidden
from celeriac.jobs import Queue
from celeriac.ledger import read
from celeriac.ledger.counts import MINUTE
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger
from celeriac.states import State

RATE_MINUTES = 5

_ENDINGS = Sql(
    "SELECT minute, state, CAST(SUM(jobs) AS bigint) AS jobs FROM endings WHERE minute >= :since"
    " GROUP BY minute, state ORDER BY minute, state"
)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts are exact; endings are by the minute in which the keeper saw them, a second or so late."""

    counts: dict[str, int]  # by state, every state
    queues: list[Queue]
    workers_online: int
    workers_stuck: int
    slots: int  # jobs that the workers online can run at a time
    running: int
    endings: list[tuple[int, str, int]]  # (minute in microseconds, final state, jobs), oldest first
    rate_per_second: float  # succeeded and failed jobs, over the last five full minutes


def stats(ledger: Ledger, principal: Principal, minutes: int = 60) -> Stats:
    """Return the state of the instance, with the endings of the last so many minutes. Raises Forbidden."""
    if not principal.may(Permission.SYSTEM_READ):
        raise Forbidden(Permission.SYSTEM_READ)
    this_minute = clock.micros() // MINUTE * MINUTE
    queues = read.all_queues(ledger)
    online = [worker for worker in read.all_workers(ledger) if worker.online]
    counts = {state.value: sum(queue.counts.get(state, 0) for queue in queues) for state in State}
    endings = _endings(ledger, this_minute - max(minutes, RATE_MINUTES + 1) * MINUTE)
    recent = sum(
        jobs
        for minute, state, jobs in endings
        if this_minute - RATE_MINUTES * MINUTE <= minute < this_minute and state != State.CANCELLED
    )
    return Stats(
        counts=counts,
        queues=queues,
        workers_online=len(online),
        workers_stuck=sum(worker.stuck_at is not None for worker in online),
        slots=sum(worker.concurrency for worker in online),
        running=counts[State.RUNNING],
        endings=[ending for ending in endings if ending[0] > this_minute - minutes * MINUTE],
        rate_per_second=recent / (RATE_MINUTES * 60),
    )


def _endings(ledger: Ledger, since: int) -> list[tuple[int, str, int]]:
    with ledger.reading() as connection:
        rows = connection.execute(_ENDINGS.on(ledger.dialect), {"since": since})
        return [(row.minute, row.state, row.jobs) for row in rows]
