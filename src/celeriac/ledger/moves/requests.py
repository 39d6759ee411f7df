"""What a person asks of a job: cancel it, or open it again.

A job that waits is cancelled on the spot and can never start. A running one gets a flag that
its worker obeys; `finish.decide` turns whatever it reports next into `cancelled` or leaves a
success as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from celeriac import clock
from celeriac.access import Permission, Principal
from celeriac.errors import (
    Forbidden,
    JobFinal,
    JobKeyTaken,
    JobNeverRan,
    JobNotFinal,
    JobNotFound,
    JobObserved,
    JobSucceeded,
    TaskNotAllowed,
)
from celeriac.jobs import COOPERATIVE_POOLS, ErrorCode, Kind
from celeriac.ledger.moves.abandon import behind, tell
from celeriac.ledger.moves.chords import End, settle, submit_failed
from celeriac.ledger.moves.revive import unfire
from celeriac.ledger.moves.unique import regain
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State, is_final

_JOBS = Sql(
    "SELECT key, id, state, queue, task, owner, number, worker, chord, group_index, cancel_requested_at,"
    " error_code, observed, unique_key"
    " FROM jobs WHERE id IN ({each}) {lock}"
)
_CANCEL = Sql(
    "UPDATE jobs SET state = 'cancelled', number = number + 1, finished_at = :now, cancel_requested_at = :now,"
    " error_code = :code, error_type = NULL, error_message = NULL WHERE key IN ({each_int})"
)
_REQUEST_CANCEL = Sql("UPDATE jobs SET number = number + 1, cancel_requested_at = :now WHERE key IN ({each_int})")
_POOLS = Sql("SELECT id, pool FROM workers WHERE id IN ({each})")
_REOPEN = Sql(
    "UPDATE jobs SET state = 'queued', number = number + 1, executions = 0, deaths = 0, result = NULL,"
    " error_code = NULL, error_type = NULL, error_message = NULL, progress_value = NULL, progress_total = NULL,"
    " progress_note = NULL, run_at = NULL, expires_at = NULL, claimed_at = NULL, started_at = NULL, finished_at = NULL,"
    " cancel_requested_at = NULL, worker = NULL, unique_key = NULL WHERE key IN ({each_int})"
)
_HEADERS = Sql("SELECT job, headers FROM payloads WHERE job IN ({each_int})")
_RENEW_PAYLOADS = Sql(
    "UPDATE payloads SET headers = v.headers, result = NULL, traceback = NULL, exception = NULL FROM {rows}"
    " WHERE payloads.job = v.key",
    key="int", headers="text",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request about one job on somebody's behalf."""

    principal: Principal
    id: str


def cancel(tx: Transaction, requests: Sequence[Asked]) -> list[State | Exception]:
    """Cancel jobs. Answers CANCELLED for those that waited, RUNNING for those whose worker was told.

    Errors: JobNotFound, Forbidden, JobFinal, JobObserved.
    """
    rows = _found(tx, requests)
    waiting: dict[int, Any] = {}
    running: dict[int, Any] = {}
    answers: list[State | Exception] = []
    for request in requests:
        answer = _refusal(request, rows, _not_cancellable)
        if answer is None:
            row = rows[request.id]
            answer = State.RUNNING if row.state == State.RUNNING else State.CANCELLED
            (running if answer is State.RUNNING else waiting)[row.key] = row
        answers.append(answer)
    cancel_waiting(tx, list(waiting.values()), None)
    _ask_workers(tx, [row for row in running.values() if row.cancel_requested_at is None])
    return answers


def cancel_waiting(tx: Transaction, rows: Sequence[Any], code: str | None) -> None:
    """End jobs that wait (rows of `jobs` with key, id, state, queue, task, number, chord, group_index)."""
    if not rows:
        return
    now = clock.micros()
    tx.run(_CANCEL, each=[row.key for row in rows], now=now, code=code)
    for row in rows:
        tx.record(row.key, row.number + 1, now, Kind.CANCELLED, {"code": code} if code else None)
        tx.count(row.state, row.queue, row.task, -1)
        tx.count(State.CANCELLED, row.queue, row.task, 1)
        tx.ends[row.id] = row.number + 1
    taken = submit_failed(tx, behind(tx, {row.key: (State.CANCELLED, None) for row in rows})) | settle(tx, [
        End(row.id, row.chord, row.group_index or 0, State.CANCELLED, None, None) for row in rows if row.chord
    ])  # fmt: skip
    tell(tx, taken, {row.id: (row.key, row.number + 1) for row in rows})


def _ask_workers(tx: Transaction, rows: Sequence[Any]) -> None:
    if not rows:
        return
    now = clock.micros()
    tx.run(_REQUEST_CANCEL, each=[row.key for row in rows], now=now)
    pools = {row.id: row.pool for row in tx.run(_POOLS, each=sorted({row.worker for row in rows}))}
    for row in rows:
        pool = pools.get(row.worker)
        told = {"pool": pool, "cooperative": pool in COOPERATIVE_POOLS} if pool else None
        tx.record(row.key, row.number + 1, now, Kind.CANCEL_REQUESTED, told)
        tx.cancels.add(row.worker)


def reopen(tx: Transaction, requests: Sequence[Asked]) -> list[State | Exception]:
    """Send failed or cancelled jobs through again under the same id. Answers QUEUED.

    The counts of executions, worker deaths and Celery retries begin anew; an expiry is dropped.
    Errors: JobNotFound, Forbidden, TaskNotAllowed, JobNotFinal, JobSucceeded, JobNeverRan, JobObserved, JobKeyTaken.
    """
    rows = _found(tx, requests)
    chosen = {}
    answers: list[State | Exception] = []
    for request in requests:
        answer = _refusal(request, rows, _not_reopenable)
        if answer is None and not request.principal.may_run(rows[request.id].task):
            answer = TaskNotAllowed(rows[request.id].task, request.principal.tasks, "")
        if answer is None:
            chosen[rows[request.id].key] = rows[request.id]
        answers.append(answer or State.QUEUED)
    now = clock.micros()
    for id, holder in regain(tx, list(chosen.values()), now).items():
        chosen.pop(rows[id].key)
        refusal = JobKeyTaken(id, holder)
        answers = [refusal if request.id == id else answer for request, answer in zip(requests, answers, strict=True)]
    if chosen:
        tx.run(_REOPEN, each=list(chosen))
        _renew_payloads(tx, list(chosen))
        unfire(tx, list(chosen))
        for row in chosen.values():
            tx.record(row.key, row.number + 1, now, Kind.REOPENED)
            tx.count(row.state, row.queue, row.task, -1)
            tx.count(State.QUEUED, row.queue, row.task, 1)
            tx.wake(row.queue, row.id)
    return answers


def _renew_payloads(tx: Transaction, keys: list[int]) -> None:
    renewed = []
    for row in tx.run(_HEADERS, each=keys).all():
        headers = msgspec.json.decode(row.headers)
        headers["retries"] = 0
        renewed.append({"key": row.job, "headers": as_json(headers)})
    tx.run(_RENEW_PAYLOADS, rows=renewed)


def _not_cancellable(row: Any) -> Exception | None:
    if is_final(row.state):
        return JobFinal(row.id, row.state)
    return JobObserved(row.id) if row.observed else None


def _not_reopenable(row: Any) -> Exception | None:
    if row.observed:
        return JobObserved(row.id)
    if row.state == State.SUCCEEDED:
        return JobSucceeded(row.id)
    if row.error_code == ErrorCode.UPSTREAM:
        return JobNeverRan(row.id)
    return None if is_final(row.state) else JobNotFinal(row.id, row.state)


def _found(tx: Transaction, requests: Sequence[Asked]) -> dict[str, Any]:
    return {row.id: row for row in tx.run(_JOBS, each=[request.id for request in requests])}


def _refusal(request: Asked, rows: dict[str, Any], rule: Callable[[Any], Exception | None]) -> Any:
    """Return the error that stands against a request, or None."""
    row = rows.get(request.id)
    if row is None or not request.principal.sees(row.owner):
        return JobNotFound(request.id)
    if not request.principal.controls(row.owner):
        return Forbidden(Permission.JOBS_CONTROL_ALL)
    return rule(row)
