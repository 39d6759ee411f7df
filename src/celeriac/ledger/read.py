"""Looking: jobs, pages of jobs, events, queues, workers. Nothing here writes or waits for a writer.

Everything is read on behalf of a Principal: what it may not see looks like what is not there.
Lists are keyset only, newest first, and carry previews; payloads are read for one job.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from celeriac.access import Principal
from celeriac.errors import JobNotFound
from celeriac.jobs import COOPERATIVE_POOLS, Event, Job, Queue, Worker
from celeriac.ledger.counts import all_counts
from celeriac.ledger.pages import page
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Ledger
from celeriac.ledger.summaries import PAYLOAD, SUMMARY, summary_of, whole_of
from celeriac.states import State

_UNFINISHED = Sql("SELECT id FROM jobs WHERE id IN ({each}) AND state NOT IN ('succeeded', 'failed', 'cancelled')")
_QUEUED = Sql(
    "SELECT 1 FROM jobs {by[jobs_waiting]} WHERE state = 'queued' AND observed = 0"
    " AND queue IN ({each} EXCEPT SELECT name FROM queues WHERE paused_at IS NOT NULL) LIMIT 1"
)
_RUNNING = Sql("SELECT worker, COUNT(*) AS jobs FROM jobs {by[jobs_running]} WHERE state = 'running' GROUP BY worker")
_WORKERS = Sql(  # the living first, however many have ended since they began
    "SELECT id, name, host, pid, queues, tasks, concurrency, pool, version, started_at, beat_at, stopped_at, lost_at,"
    " (SELECT at FROM stuck_workers WHERE worker = workers.id) AS stuck_at"
    " FROM workers ORDER BY CASE WHEN COALESCE(stopped_at, lost_at) IS NULL THEN 0 ELSE 1 END, started_at DESC"
    " LIMIT 500"
)
_PAUSED = Sql("SELECT name, paused_at FROM queues")
_OLDEST = Sql(
    "SELECT v.queue, MIN(k.value) AS at FROM {rows} CROSS JOIN {for_each} SELECT created_at AS value FROM jobs"
    " {by[jobs_kind]} WHERE state = 'queued' AND queue = v.queue AND task = v.task ORDER BY key LIMIT 1 {end_each} AS k"
    " GROUP BY v.queue",
    queue="text", task="text",
)  # fmt: skip
_POOL = Sql("SELECT pool FROM workers WHERE id = :id")
_CANCELS = Sql(
    "SELECT key, attempt FROM jobs {by[jobs_running]}"
    " WHERE worker = :worker AND state = 'running' AND cancel_requested_at IS NOT NULL"
)
_CLAIMED = Sql(
    "SELECT key, id, attempt, task, queue FROM jobs {by[jobs_running]}"
    " WHERE worker = :worker AND state = 'running' AND started_at IS NULL"
)
_OWNER = Sql("SELECT key, owner FROM jobs WHERE id = :id")
_HISTORY = Sql(
    "SELECT number, at, kind, data, position FROM events WHERE job = :job AND number > :after"
    " ORDER BY number LIMIT :most"
)
_MEMBERS = Sql("SELECT id FROM jobs WHERE group_id = :group ORDER BY group_index, key LIMIT 10000")
_SUMMARY = Sql(f"SELECT {SUMMARY} FROM jobs WHERE id = :id")
_WHOLE = Sql(f"SELECT {SUMMARY}, {PAYLOAD} FROM jobs JOIN payloads ON payloads.job = jobs.key WHERE jobs.id = :id")


def job(ledger: Ledger, principal: Principal, id: str) -> Job:
    """Return one job with its payload. Raises JobNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_WHOLE.on(ledger.dialect), {"id": id}).first()
    if row is None or not principal.sees(row.owner):
        raise JobNotFound(id)
    return whole_of(row)


def summary(ledger: Ledger, principal: Principal, id: str) -> Job:
    """Return one job with previews only: what a waiting caller looks at. Raises JobNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_SUMMARY.on(ledger.dialect), {"id": id}).first()
    if row is None or not principal.sees(row.owner):
        raise JobNotFound(id)
    return summary_of(row)


def members(ledger: Ledger, group: str) -> list[str]:
    """Return the ids of the jobs that Celery submitted as one group, in their order; 10,000 at most."""
    with ledger.reading() as connection:
        return [row.id for row in connection.execute(_MEMBERS.on(ledger.dialect), {"group": group})]


def ended(ledger: Ledger, ids: Sequence[str]) -> list[str]:
    """Return which of these jobs are final or gone: what the hub asks, once for everybody who waits."""
    with ledger.reading() as connection:
        rows = connection.execute(_UNFINISHED.on(ledger.dialect), {"each": as_json(ids)})
        unfinished = {row.id for row in rows}
    return [id for id in ids if id not in unfinished]


def history(ledger: Ledger, principal: Principal, id: str, after: int, limit: int) -> list[Event]:
    """Return the events of a job with numbers above `after`, in order. Raises JobNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_OWNER.on(ledger.dialect), {"id": id}).first()
        if row is None or not principal.sees(row.owner):
            raise JobNotFound(id)
        lines = connection.execute(_HISTORY.on(ledger.dialect), {"job": row.key, "after": after, "most": limit}).all()
    return [Event(id, *line) for line in lines]


def all_queues(ledger: Ledger) -> list[Queue]:
    """Return every queue that has jobs, is consumed or is paused, with exact counts by state."""
    with ledger.reading() as connection:
        paused = {row.name: row.paused_at for row in connection.execute(_PAUSED.on(ledger.dialect))}
        numbers: dict[str, dict[str, int]] = {name: {} for name in paused}
        waiting = []
        for (state, queue, task), number in all_counts(connection).items():
            states = numbers.setdefault(queue, {})
            states[state] = states.get(state, 0) + number
            if state == State.QUEUED and number:
                waiting.append({"queue": queue, "task": task})
        for worker in _workers(connection):
            if worker.online:
                for queue in worker.queues:
                    numbers.setdefault(queue, {})
        oldest = connection.execute(_OLDEST.on(ledger.dialect), {"rows": as_json(waiting)})
        ages = {row.queue: row.at for row in oldest}
    return [Queue(name, paused.get(name), numbers[name], ages.get(name)) for name in sorted(numbers)]


def all_workers(ledger: Ledger) -> list[Worker]:
    """Return the worker nodes known, the living first, each with how many jobs it runs."""
    with ledger.reading() as connection:
        return sorted(_workers(connection), key=lambda worker: (not worker.online, worker.name, -worker.started_at))


def is_cooperative(ledger: Ledger, worker: str) -> bool:
    """Say whether a cancel ends what this worker runs only with the job's own help."""
    with ledger.reading() as connection:
        row = connection.execute(_POOL.on(ledger.dialect), {"id": worker}).first()
    return row is not None and row.pool in COOPERATIVE_POOLS


def cancels(ledger: Ledger, worker: str) -> list[tuple[int, int]]:
    """Return (key, attempt) of the jobs this worker runs that somebody asked to cancel."""
    with ledger.reading() as connection:
        rows = connection.execute(_CANCELS.on(ledger.dialect), {"worker": worker})
        return [(key, attempt) for key, attempt in rows]


def claimed(ledger: Ledger, worker: str) -> list[tuple[int, str, int, str, str]]:
    """Return (key, id, attempt, task, queue) of the jobs this worker has and has not started, as far as is written."""
    with ledger.reading() as connection:
        return [tuple(row) for row in connection.execute(_CLAIMED.on(ledger.dialect), {"worker": worker})]


def any_queued(ledger: Ledger, names: Sequence[str]) -> bool:
    """Say whether a job waits in one of these queues, if they are not paused: what a worker asks before it writes."""
    with ledger.reading() as connection:
        return connection.execute(_QUEUED.on(ledger.dialect), {"each": as_json(names)}).first() is not None


def _workers(connection: Connection) -> list[Worker]:
    rows = connection.execute(_RUNNING.on(connection.dialect.name))
    running: dict[str, int] = {row.worker: row.jobs for row in rows}
    decode = msgspec.json.decode
    return [
        Worker(
            row.id, row.name, row.host, row.pid, tuple(decode(row.queues)), tuple(decode(row.tasks)), row.concurrency,
            row.pool, row.version, row.started_at, row.beat_at, row.stopped_at, row.lost_at, running.get(row.id, 0),
            row.stuck_at,
        )
        for row in connection.execute(_WORKERS.on(connection.dialect.name))
    ]  # fmt: skip


__all__ = [
    "all_counts", "all_queues", "all_workers", "any_queued", "cancels", "claimed", "ended", "history", "job", "members",
    "page", "summary",
]  # fmt: skip
