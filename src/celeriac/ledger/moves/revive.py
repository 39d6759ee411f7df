"""Revive: a job whose row is there already gets its message, or its end, from what runs before it.

Two kinds of rows wait so. A link of a chain or the body of a chord that was given up is recorded as
failed without having run; when a person opens the failed job before it and that succeeds, it is submitted
under the id it always had. And a job that replaced itself by a canvas (`Task.replace`) waits as `retrying`,
without a time, until the last task of that canvas is submitted under its id, or given up.
"""

from collections.abc import Sequence
from typing import Any

from celeriac.jobs import Kind, Receipt, Submission
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction
from celeriac.states import State

_WAIT = Sql(
    "SELECT key, id, state, queue, task, number, created_at FROM jobs WHERE id IN ({each})"
    " AND (error_code = 'upstream-failed' OR (state = 'retrying' AND run_at IS NULL)) {lock}"
)
_REVIVE = Sql(
    "UPDATE jobs SET state = v.state, number = v.number, task = v.task, queue = v.queue, args = v.args,"
    " priority = v.priority, run_at = v.run_at, finished_at = v.finished_at, unique_key = NULL,"
    " error_code = v.code, error_type = v.type, error_message = v.message FROM {rows} WHERE jobs.key = v.key",
    key="int", state="text", number="int", task="text", queue="text", args="text", priority="int", run_at="int",
    finished_at="int", code="text", type="text", message="text",
)  # fmt: skip
_PAYLOAD = Sql(
    "UPDATE payloads SET headers = v.headers, properties = v.properties, body = v.body, traceback = NULL,"
    " exception = v.exception FROM {rows} WHERE payloads.job = v.key",
    key="int", headers="text", properties="text", body="text", exception="text",
)  # fmt: skip
_UNFIRE = Sql(
    "UPDATE chords SET fired_at = NULL"
    " WHERE id IN (SELECT chord FROM jobs WHERE key IN ({each_int}) AND chord IS NOT NULL)"
)


def revive(tx: Transaction, submissions: Sequence[Submission], now: int) -> dict[str, Receipt]:
    """Open those of these jobs that wait so, or end those that are given up; return their receipts by id."""
    wanted = {submission.id: submission for submission in submissions}
    found = tx.run(_WAIT, each=list(wanted)).all() if wanted else []
    rows, payloads, receipts = [], [], {}
    for row in found:
        submission = wanted[row.id]
        if submission.failure is not None and row.state != State.RETRYING:
            continue  # it has been given up before
        state = _state(submission, row.state, now)
        number = row.number + (row.state != State.RETRYING or submission.failure is not None)
        rows.append(_columns(row.key, number, state, submission, now))
        message, failure = submission.message, submission.failure
        payloads.append({"key": row.key, "headers": message.headers, "properties": message.properties,
                         "body": message.body, "exception": failure and failure.celery})  # fmt: skip
        receipts[row.id] = Receipt(row.id, row.key, state, row.created_at)
        _tell(tx, row, number, state, submission, now)
    if rows:
        tx.run(_REVIVE, rows=rows)
        tx.run(_PAYLOAD, rows=payloads)
    return receipts


def unfire(tx: Transaction, keys: Sequence[int]) -> None:
    """Let the chords of these reopened members complete after all: one that they had failed has not run."""
    tx.run(_UNFIRE, each=list(keys))


def _state(submission: Submission, before: str, now: int) -> State:
    if submission.failure is not None:
        return submission.ends_as
    if submission.run_at is None or submission.run_at <= now:
        return State.QUEUED
    return State.RETRYING if before == State.RETRYING else State.SCHEDULED


def _tell(tx: Transaction, row: Any, number: int, state: State, submission: Submission, now: int) -> None:
    tx.count(row.state, row.queue, row.task, -1)
    tx.count(state, submission.queue, submission.task, 1)
    if submission.failure is not None:
        tx.record(row.key, number, now, Kind(state), {"code": submission.failure.code})
        tx.ends[row.id] = number
        return
    if row.state != State.RETRYING:
        tx.record(row.key, number, now, Kind.REOPENED)
    if state is State.QUEUED:
        tx.wake(submission.queue, submission.id)
    else:
        tx.wait_until(submission.run_at)


def _columns(key: int, number: int, state: State, submission: Submission, now: int) -> dict[str, Any]:
    failure = submission.failure
    return {
        "key": key, "state": state, "number": number, "task": submission.task, "queue": submission.queue,
        "args": submission.args, "priority": submission.priority, "run_at": submission.run_at,
        "finished_at": now if failure else None, "code": failure and failure.code, "type": failure and failure.type,
        "message": failure and failure.message,
    }  # fmt: skip
