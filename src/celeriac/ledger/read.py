"""Looking: jobs, pages of jobs, events, queues, workers. Nothing here writes or waits for a writer.

Everything is read on behalf of a Principal: what it may not see looks like what is not there.
Lists are keyset only, newest first, and carry previews; payloads are read for one job.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, or_, select

from celeriac.access import Permission, Principal
from celeriac.errors import Fault, InvalidRequest, JobNotFound
from celeriac.jobs import Event, Failure, Filter, Job, Message, Progress, Queue, Worker
from celeriac.ledger.schema import count_deltas, counts, events, jobs, payloads, queues, tags, workers
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Ledger
from celeriac.states import State

_UNFINISHED = Sql("SELECT id FROM jobs WHERE id IN ({each}) AND state NOT IN ('succeeded', 'failed', 'cancelled')")
_QUEUED = Sql("SELECT 1 FROM jobs {by[jobs_ready]} WHERE state = 'queued' AND queue IN ({each}) LIMIT 1")
_RUNNING = Sql("SELECT worker, COUNT(*) AS jobs FROM jobs {by[jobs_running]} WHERE state = 'running' GROUP BY worker")
_CURSOR = re.compile("k[0-9a-f]{1,15}")
_COLUMNS = [column for column in jobs.c if column.name not in ("rerun", "deaths", "chord", "group_index")]
# Built once: putting forty columns together takes longer than asking for them.
_SUMMARY = select(*_COLUMNS).where(jobs.c.id == bindparam("id"))
_WHOLE = select(*_COLUMNS, payloads).join(payloads, payloads.c.job == jobs.c.key).where(jobs.c.id == bindparam("id"))


def job(ledger: Ledger, principal: Principal, id: str) -> Job:
    """Return one job with its payload. Raises JobNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_WHOLE, {"id": id}).first()
    if row is None or not principal.sees(row.owner):
        raise JobNotFound(id)
    return _job(row, full=True)


def summary(ledger: Ledger, principal: Principal, id: str) -> Job:
    """Return one job with previews only: what a waiting caller looks at. Raises JobNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_SUMMARY, {"id": id}).first()
    if row is None or not principal.sees(row.owner):
        raise JobNotFound(id)
    return _job(row, full=False)


def page(
    ledger: Ledger, principal: Principal, filter: Filter, after: str | None, limit: int
) -> tuple[list[Job], str | None]:
    """Return a page of jobs, newest first, and the cursor of the next page (None on the last).

    Raises InvalidRequest for a cursor that was not given out here.
    """
    query = select(*_COLUMNS).where(*_conditions(principal, filter))
    if after is not None:
        query = query.where(jobs.c.key < _key(after))
    with ledger.reading() as connection:
        rows = connection.execute(query.order_by(jobs.c.key.desc()).limit(limit + 1)).all()
    cursor = _cursor(rows[limit - 1].key) if len(rows) > limit else None
    return [_job(row, full=False) for row in rows[:limit]], cursor


def ended(ledger: Ledger, ids: Sequence[str]) -> list[str]:
    """Return which of these jobs are final or gone: what the hub asks, once for everybody who waits."""
    with ledger.reading() as connection:
        rows = connection.execute(_UNFINISHED.on(ledger.dialect), {"each": as_json(ids)})
        unfinished = {row.id for row in rows}
    return [id for id in ids if id not in unfinished]


def history(ledger: Ledger, principal: Principal, id: str, after: int, limit: int) -> list[Event]:
    """Return the events of a job with numbers above `after`, in order. Raises JobNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(select(jobs.c.key, jobs.c.owner).where(jobs.c.id == id)).first()
        if row is None or not principal.sees(row.owner):
            raise JobNotFound(id)
        lines = connection.execute(
            select(events)
            .where(events.c.job == row.key, events.c.number > after)
            .order_by(events.c.number)
            .limit(limit)
        ).all()
    return [Event(id, line.number, line.at, line.kind, line.data, line.position) for line in lines]


def all_counts(connection: Connection) -> dict[tuple[str, str, str], int]:
    """Return how many jobs there are by state, queue and task: exact, without looking at a job."""
    both = (
        select(counts)
        .union_all(select(count_deltas.c.state, count_deltas.c.queue, count_deltas.c.task, count_deltas.c.jobs))
        .subquery()
    )
    rows = connection.execute(
        select(both.c.state, both.c.queue, both.c.task, func.sum(both.c.jobs).label("jobs")).group_by(
            both.c.state, both.c.queue, both.c.task
        )
    )
    return {(row.state, row.queue, row.task): int(row.jobs) for row in rows if row.jobs}


def all_queues(ledger: Ledger) -> list[Queue]:
    """Return every queue that has jobs, is consumed or is paused, with exact counts by state."""
    with ledger.reading() as connection:
        paused = {row.name: row.paused_at for row in connection.execute(select(queues))}
        numbers: dict[str, dict[str, int]] = {name: {} for name in paused}
        for (state, queue, _), number in all_counts(connection).items():
            states = numbers.setdefault(queue, {})
            states[state] = states.get(state, 0) + number
        for worker in _workers(connection):
            if worker.online:
                for queue in worker.queues:
                    numbers.setdefault(queue, {})
        ages = {name: _oldest(connection, name) for name, states in numbers.items() if states.get(State.QUEUED)}
    return [Queue(name, paused.get(name), numbers[name], ages.get(name)) for name in sorted(numbers)]


def all_workers(ledger: Ledger) -> list[Worker]:
    """Return the worker nodes known, the living first, each with how many jobs it runs."""
    with ledger.reading() as connection:
        return sorted(_workers(connection), key=lambda worker: (not worker.online, worker.name, -worker.started_at))


def cancels(ledger: Ledger, worker: str) -> list[tuple[int, int]]:
    """Return (key, attempt) of the jobs this worker runs that somebody asked to cancel."""
    query = select(jobs.c.key, jobs.c.attempt).where(
        jobs.c.worker == worker, jobs.c.state == State.RUNNING, jobs.c.cancel_requested_at.is_not(None)
    )
    with ledger.reading() as connection:
        return [(row.key, row.attempt) for row in connection.execute(query)]


def any_queued(ledger: Ledger, names: Sequence[str]) -> bool:
    """Say whether a job waits in one of these queues: what a worker asks before it takes a turn to write."""
    with ledger.reading() as connection:
        return connection.execute(_QUEUED.on(ledger.dialect), {"each": as_json(names)}).first() is not None


def _oldest(connection: Connection, queue: str) -> int | None:
    """Return when the oldest queued job of the head of a queue was made; looks at 100 rows at most."""
    head = (
        select(jobs.c.created_at)
        .where(jobs.c.state == State.QUEUED, jobs.c.queue == queue)
        .order_by(jobs.c.priority.desc(), jobs.c.key)
        .limit(100)
        .subquery()
    )
    return connection.execute(select(func.min(head.c.created_at))).scalar()


def _workers(connection: Connection) -> list[Worker]:
    rows = connection.execute(_RUNNING.on(connection.dialect.name))
    running: dict[str, int] = {row.worker: row.jobs for row in rows}
    decode = msgspec.json.decode
    return [
        Worker(
            row.id, row.name, row.host, row.pid, tuple(decode(row.queues)), tuple(decode(row.tasks)), row.concurrency,
            row.pool, row.version, row.started_at, row.beat_at, row.stopped_at, row.lost_at, running.get(row.id, 0),
        )
        for row in connection.execute(select(workers).order_by(workers.c.started_at.desc()).limit(500))
    ]  # fmt: skip


def _conditions(principal: Principal, filter: Filter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if Permission.JOBS_READ_ALL not in principal.permissions:
        found.append(jobs.c.owner == principal.owner)
    for column, values in (
        (jobs.c.state, filter.states),
        (jobs.c.task, filter.tasks),
        (jobs.c.queue, filter.queues),
        (jobs.c.owner, filter.owners),
    ):
        if values:
            found.append(column.in_(values))
    if filter.tags:
        found.append(exists().where(tags.c.job == jobs.c.key, tags.c.tag.in_(filter.tags)))
    if filter.since is not None:
        found.append(jobs.c.created_at >= filter.since)
    if filter.until is not None:
        found.append(jobs.c.created_at < filter.until)
    if filter.q:
        found.append(_matches(filter.q))
    return found


def _matches(prefix: str) -> ColumnElement[bool]:
    tagged = exists().where(tags.c.job == jobs.c.key, tags.c.tag.startswith(prefix, autoescape=True))
    columns = (jobs.c.id, jobs.c.task, jobs.c.error_type)
    return or_(*(column.startswith(prefix, autoescape=True) for column in columns), tagged)


def _cursor(key: int) -> str:
    return f"k{key:x}"


def _key(cursor: str) -> int:
    if not _CURSOR.fullmatch(cursor):
        raise InvalidRequest.of([Fault("/after", f"{cursor[:40]!r} is not a cursor that a list gave out")])
    return int(cursor[1:], 16)


def _job(row: Any, full: bool) -> Job:
    failure = None
    if row.error_code or row.error_type:
        traceback, celery = (row.traceback, row.exception) if full else (None, None)
        failure = Failure(row.error_code or "", row.error_type or "", row.error_message or "", traceback, celery)
    progress = None
    if row.progress_value is not None:
        progress = Progress(row.progress_value, row.progress_total, row.progress_note)
    result = row._mapping[payloads.c.result] if full else row._mapping[jobs.c.result]
    return Job(
        key=row.key, id=row.id, task=row.task, state=State(row.state), queue=row.queue, priority=row.priority,
        args=row.args, result=result, failure=failure, progress=progress, attempt=row.attempt,
        max_attempts=row.max_attempts, owner=row.owner, tags=tuple(msgspec.json.decode(row.tags)) if row.tags else (),
        cost=row.cost, created_at=row.created_at, run_at=row.run_at, expires_at=row.expires_at,
        started_at=row.started_at, finished_at=row.finished_at, cancel_requested_at=row.cancel_requested_at,
        worker=row.worker, parent=row.parent, root=row.root, group=row.group_id, schedule=row.schedule,
        number=row.number, message=Message(row.headers, row.properties, row.body) if full else None, full=full,
        batch=row.batch, observed=bool(row.observed), celery_state=row.celery_state if full else None,
        celery_meta=row.celery_meta if full else None,
    )  # fmt: skip


__all__ = [
    "all_counts", "all_queues", "all_workers", "any_queued", "cancels", "ended", "history", "job", "page", "summary",
]  # fmt: skip
