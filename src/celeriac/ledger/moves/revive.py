"""Revive: a job that was given up because the one before it failed gets its turn after all.

When a link of a chain or a member of a chord fails, what waits for it is recorded as failed
without having run. If a person opens the failed one again and it succeeds, the next link or
the body is submitted under the id it always had: here its row is opened with its real message.
"""

from collections.abc import Sequence
from typing import Any

from celeriac.jobs import Kind, Receipt, Submission
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction
from celeriac.states import State

_NEVER_RAN = Sql(
    "SELECT key, id, state, queue, task, number, created_at FROM jobs"
    " WHERE id IN ({each}) AND error_code = 'upstream-failed' {lock_row}"
)
_REVIVE = Sql(
    "UPDATE jobs SET state = v.state, number = jobs.number + 1, task = v.task, queue = v.queue, args = v.args,"
    " priority = v.priority, run_at = v.run_at, finished_at = NULL,"
    " error_code = NULL, error_type = NULL, error_message = NULL FROM {rows} WHERE jobs.key = v.key",
    key="int", state="text", task="text", queue="text", args="text", priority="int", run_at="int",
)  # fmt: skip
_MESSAGE = Sql(
    "UPDATE payloads SET headers = v.headers, properties = v.properties, body = v.body, traceback = NULL,"
    " exception = NULL FROM {rows} WHERE payloads.job = v.key",
    key="int", headers="text", properties="text", body="text",
)  # fmt: skip
_UNFIRE = Sql(
    "UPDATE chords SET fired_at = NULL"
    " WHERE id IN (SELECT chord FROM jobs WHERE key IN ({each_int}) AND chord IS NOT NULL)"
)


def revive(tx: Transaction, submissions: Sequence[Submission], now: int) -> dict[str, Receipt]:
    """Open those of these jobs that never ran, with the messages they have now; return their receipts by id."""
    wanted = {submission.id: submission for submission in submissions if submission.failure is None}
    found = tx.run(_NEVER_RAN, each=list(wanted)).all() if wanted else []
    if not found:
        return {}
    rows, messages, receipts = [], [], {}
    for row in found:
        submission = wanted[row.id]
        waits = submission.run_at is not None and submission.run_at > now
        state = State.SCHEDULED if waits else State.QUEUED
        rows.append(_columns(row.key, state, submission))
        message = submission.message
        messages.append({"key": row.key, "headers": message.headers, "properties": message.properties,
                         "body": message.body})  # fmt: skip
        receipts[row.id] = Receipt(row.id, row.key, state, row.created_at)
        tx.record(row.key, row.number + 1, now, Kind.REOPENED)
        tx.count(row.state, row.queue, row.task, -1)
        tx.count(state, submission.queue, submission.task, 1)
        if waits:
            tx.wait_until(submission.run_at)
        else:
            tx.wakes.add(submission.queue)
    tx.run(_REVIVE, rows=rows)
    tx.run(_MESSAGE, rows=messages)
    return receipts


def unfire(tx: Transaction, keys: Sequence[int]) -> None:
    """Let the chords of these reopened members complete after all: one that they had failed has not run."""
    tx.run(_UNFIRE, each=list(keys))


def _columns(key: int, state: State, submission: Submission) -> dict[str, Any]:
    return {
        "key": key, "state": state, "task": submission.task, "queue": submission.queue, "args": submission.args,
        "priority": submission.priority, "run_at": submission.run_at,
    }  # fmt: skip
