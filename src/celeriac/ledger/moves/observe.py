"""Sight: what is seen of jobs that somebody else's broker and workers run (`attach(app)`, mode observe).

Nothing is decided here, only written down: each Sighting is one thing that a producer or a worker
of the attached app did. They come from several processes, late and in any order, and some never
come; so an unknown job is entered on first sight, an execution is told from another by the moment
it began, and what is final stays, but for what was given up unseen. Who sends them: app/observer.py
and worker/observe.py.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from celeriac import clock
from celeriac.jobs import ErrorCode, Failure, Kind, Submission
from celeriac.ledger.moves.submit import submit
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger, Transaction
from celeriac.states import State, is_final

_KNOWN = Sql("SELECT id FROM jobs WHERE id IN ({each})")
_COLUMNS = {
    "key": "int", "state": "text", "task": "text", "number": "int", "attempt": "int", "executions": "int",
    "rerun": "int", "worker": "text", "claimed_at": "int", "started_at": "int", "finished_at": "int", "run_at": "int",
    "progress_value": "real", "progress_total": "real", "progress_note": "text", "result": "text",
    "error_code": "text", "error_type": "text", "error_message": "text",
}  # fmt: skip
_ROWS = Sql(f"SELECT id, queue, {', '.join(_COLUMNS)} FROM jobs WHERE id IN ({{each}}) AND observed = 1 {{lock}}")
_WRITE = Sql(
    f"UPDATE jobs SET {', '.join(f'{name} = v.{name}' for name in _COLUMNS if name != 'key')} FROM {{rows}}"
    " WHERE jobs.key = v.key",
    **_COLUMNS,
)
_WRITE_PAYLOAD = Sql(
    "UPDATE payloads SET result = v.result, traceback = v.traceback, exception = NULL FROM {rows}"
    " WHERE payloads.job = v.key",
    key="int", result="text", traceback="text",
)  # fmt: skip
# A job that waits since before, as far as can be seen: for its worker, or for another one after a loss or a retry.
_UNSEEN = Sql(
    "SELECT key, id, queue, task, number FROM jobs {by[jobs_observed]} WHERE observed = 1 AND state = 'queued'"
    " AND created_at < :before AND COALESCE(run_at, created_at) < :before ORDER BY created_at LIMIT :most {lock_row}"
)
_GIVE_UP = Sql(
    "UPDATE jobs SET state = 'failed', number = number + 1, finished_at = :now, error_code = :code,"
    " error_type = 'NotDelivered', error_message = :message WHERE key IN ({each_int})"
)
UNSEEN = "No worker was seen with it for {days:g} days: its broker has lost it, or gave it to one that is not attached."


@dataclass(frozen=True, slots=True)
class Sighting:
    """One thing seen of a job. `execution` is when the execution it belongs to began, by its worker's clock.

    `state` is where the job goes by it; None leaves it. `submission` enters the job if nobody has.
    """

    id: str
    at: int
    kind: Kind
    state: State | None = None
    execution: int | None = None
    data: dict[str, Any] | None = None
    submission: Submission | None = None
    worker: str | None = None
    rerun: bool = True
    task: str | None = None
    run_at: int | None = None
    result: str | None = None
    preview: str | None = None
    failure: Failure | None = None


@dataclass(slots=True)
class Row:
    """An observed job as it is in the ledger, while sightings change it."""

    id: str
    queue: str
    key: int
    state: str
    task: str
    number: int
    attempt: int
    executions: int
    rerun: int
    worker: str | None
    claimed_at: int | None
    started_at: int | None
    finished_at: int | None
    run_at: int | None
    progress_value: float | None
    progress_total: float | None
    progress_note: str | None
    result: str | None
    error_code: str | None
    error_type: str | None
    error_message: str | None


def sight(tx: Transaction, sightings: Sequence[Sighting]) -> list[bool | Exception]:
    """Write sightings down, in their order. Answers whether each told of an observed job; safe to repeat."""
    ids = sorted({sighting.id for sighting in sightings})
    fresh = _enter(tx, sightings, ids)
    rows = {row.id: Row(*tuple(row)) for row in tx.run(_ROWS, each=ids)}
    before = {row.id: (row.state, row.task) for row in rows.values()}
    payloads: dict[int, dict[str, Any]] = {}
    for sighting in sightings:
        row = rows.get(sighting.id)
        if row is None:
            continue
        if sighting.kind is Kind.SENT and sighting.id not in fresh:
            continue  # a worker was seen with it before its producer was
        events = follow(row, sighting)
        for kind, data in events:
            row.number += 1
            tx.record(row.key, row.number, sighting.at, kind, data)
        if events and sighting.state is not None:
            failure = sighting.failure
            payloads[row.key] = {
                "key": row.key, "result": sighting.result, "traceback": failure and failure.traceback,
            }  # fmt: skip
    if rows:
        tx.write(_WRITE, rows=[_columns(row) for row in rows.values()])
    if payloads:
        tx.write(_WRITE_PAYLOAD, rows=list(payloads.values()))
    for row in rows.values():
        _tell(tx, row, *before[row.id])
    return [sighting.id in rows for sighting in sightings]


def _enter(tx: Transaction, sightings: Sequence[Sighting], ids: list[str]) -> set[str]:
    """Make rows for the jobs that nobody has told of; return their ids."""
    known = {row.id for row in tx.run(_KNOWN, each=ids)}
    submissions = {
        sighting.id: sighting.submission
        for sighting in reversed(sightings)
        if sighting.submission is not None and sighting.id not in known
    }
    if submissions:
        submit(tx, list(submissions.values()))
    return set(submissions)


def any_unseen(ledger: Ledger, before: int) -> bool:
    """Say whether an observed job waits since before without a sign of life."""
    with ledger.reading() as connection:
        return connection.execute(_UNSEEN.on(ledger.dialect), {"before": before, "most": 1}).first() is not None


def give_up_unseen(tx: Transaction, days: float, before: int, most: int) -> int:
    """End observed jobs that wait since before without a sign of life; return how many. A sighting opens them again."""
    now = clock.micros()
    rows = tx.run(_UNSEEN, before=before, most=most).all()
    tx.run(
        _GIVE_UP, each=[row.key for row in rows], now=now, code=ErrorCode.NOT_DELIVERED,
        message=UNSEEN.format(days=days),
    )  # fmt: skip
    for row in rows:
        tx.record(row.key, row.number + 1, now, Kind.FAILED, {"code": ErrorCode.NOT_DELIVERED})
        tx.count(State.QUEUED, row.queue, row.task, -1)
        tx.count(State.FAILED, row.queue, row.task, 1)
        tx.ends[row.id] = row.number + 1
    return len(rows)


def follow(row: Row, seen: Sighting) -> list[tuple[Kind, dict[str, Any] | None]]:
    """Change a row as a sighting tells, and return the events to write for it."""
    if row.error_code == ErrorCode.NOT_DELIVERED:  # it was only late
        row.state, row.finished_at = State.QUEUED, None
        row.error_code = row.error_type = row.error_message = None
        return [(Kind.REOPENED, None), *follow(row, seen)]
    if is_final(row.state):
        if seen.kind is not Kind.STARTED:
            return []
        return [(Kind.LOG, {"text": f"{seen.worker} started it again after its end, as the broker gave it out again."})]
    if seen.kind is Kind.STARTED:
        return [] if row.started_at == seen.execution else _start(row, seen)
    events: list[tuple[Kind, dict[str, Any] | None]] = []
    if seen.execution is not None and row.started_at != seen.execution:
        if row.state == State.RUNNING or seen.state is None:  # another execution has begun since
            return []
        events = _start(row, seen)  # its start was not seen, or its worker was taken for lost
    if seen.kind is Kind.PROGRESS and seen.data is not None:
        row.progress_value, row.progress_total = seen.data["value"], seen.data["total"]
        row.progress_note = seen.data["note"]
    if seen.state is not None:
        _leave(row, seen, seen.state)
    data = seen.data
    if seen.execution is not None and seen.state is not None:
        data = {"attempt": row.attempt, **(data or {})}
    return [*events, (seen.kind, data)]


def _start(row: Row, seen: Sighting) -> list[tuple[Kind, dict[str, Any] | None]]:
    row.state, row.worker, row.rerun = State.RUNNING, seen.worker, int(seen.rerun)
    row.task = seen.submission.task if seen.submission else row.task  # it was replaced, perhaps
    row.attempt += 1
    row.executions += 1
    row.claimed_at = row.started_at = seen.execution
    row.progress_value = row.progress_total = row.progress_note = None
    return [
        (Kind.CLAIMED, {"worker": seen.worker, "attempt": row.attempt}),
        (Kind.STARTED, {"attempt": row.attempt}),
    ]


def _leave(row: Row, seen: Sighting, state: State) -> None:
    failure = seen.failure
    row.state, row.task = state, seen.task or row.task
    row.error_code = str(failure.code) if failure else None
    row.error_type = failure.type if failure else None
    row.error_message = failure.message[:2000] if failure else None
    row.result = seen.preview
    if is_final(state):
        row.finished_at = seen.at
    else:
        row.worker = row.claimed_at = row.started_at = None
        row.run_at = seen.run_at or seen.at


def _columns(row: Row) -> dict[str, Any]:
    columns = asdict(row)
    del columns["id"], columns["queue"]
    return columns


def _tell(tx: Transaction, row: Row, state: str, task: str) -> None:
    if (state, task) != (row.state, row.task):
        tx.count(state, row.queue, task, -1)
        tx.count(row.state, row.queue, row.task, 1)
    if is_final(row.state):
        tx.ends[row.id] = row.number
    else:
        tx.steps[row.id] = row.number
        if row.state == State.RETRYING:
            tx.wait_until(row.run_at)
