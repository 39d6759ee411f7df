"""Unique jobs: while a key of an owner's task stands for a job, submitting it again answers that job.

A key stands until its job is final and its window is over. Called by `submit` before it writes
anything; whoever comes second with a key, in this transaction or in another one, waits here
until it is known what became of the first.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from celeriac.jobs import Receipt, Submission
from celeriac.ledger.sql import Insert, Sql
from celeriac.ledger.store import Transaction
from celeriac.states import State, is_final

Key: TypeAlias = tuple[str, str, str]  # owner, task, key

_COLUMNS = {"owner": "text", "task": "text", "key": "text", "job": "text", "until": "int"}
# Changes nothing in a row that is there, but holds it: on Postgres nobody else decides about it meanwhile.
_TAKE = Insert(
    "unique_keys",
    "ON CONFLICT (owner, task, key) DO UPDATE SET job = unique_keys.job RETURNING owner, task, key, job, until",
    **_COLUMNS,
)
# The owner's own; its task may be another one by now, when it goes on as what it was replaced by.
_STANDING = Sql("SELECT key, id, owner, state, created_at FROM jobs WHERE id IN ({each})")
_TAKE_OVER = Sql(
    "UPDATE unique_keys SET job = v.job, until = v.until FROM {rows}"
    " WHERE unique_keys.owner = v.owner AND unique_keys.task = v.task AND unique_keys.key = v.key",
    **_COLUMNS,
)
_DROP = Sql(
    "DELETE FROM unique_keys WHERE (owner, task, key, job, until) IN"
    " (SELECT v.owner, v.task, v.key, v.job, v.until FROM {rows})",
    **_COLUMNS,
)
# An Idempotency-Key that came with a duplicate stands for the job that was answered.
_POINT_KEYS = Sql(
    "UPDATE idempotency SET job = v.job FROM {rows} WHERE idempotency.owner = v.owner AND idempotency.key = v.key",
    owner="text", key="text", job="text",
)  # fmt: skip


def stand(
    tx: Transaction,
    submissions: Sequence[Submission],
    answers: list[Receipt | Exception | None],
    places: Sequence[int],
    now: int,
) -> dict[int, int]:
    """Answer those of these places whose key stands for a job, and let the keys of the others stand for theirs.

    Returns the places (to the place of the first) that repeat a key within this very batch.
    """
    firsts: dict[Key, int] = {}
    twins: dict[int, int] = {}
    for place in places:
        unique = submissions[place].unique
        if unique is not None:
            first = firsts.setdefault((submissions[place].owner, submissions[place].task, unique.key), place)
            if first != place:
                twins[place] = first
    if firsts:
        _answer(tx, submissions, answers, firsts, now)
        _point(tx, submissions, answers, firsts, twins)
    return twins


def drop(tx: Transaction, refused: Sequence[Submission], now: int) -> None:
    """Take back the keys that `stand` entered `now` for jobs that were not accepted after all.

    A key with another end is one that stood for a job of this id before, and stays.
    """
    rows = [_row(submission, now) for submission in refused if submission.unique is not None]
    if rows:
        tx.run(_DROP, rows=rows)


def _answer(
    tx: Transaction,
    submissions: Sequence[Submission],
    answers: list[Receipt | Exception | None],
    firsts: dict[Key, int],
    now: int,
) -> None:
    rows = {key: _row(submissions[place], now) for key, place in sorted(firsts.items())}
    held = {
        (row.owner, row.task, row.key): row
        for row in tx.run(_TAKE, rows=list(rows.values()))
        if row.job != rows[row.owner, row.task, row.key]["job"]
    }
    if not held:
        return
    jobs = {job.id: job for job in tx.run(_STANDING, each=[row.job for row in held.values()])}
    free = []
    for key, row in held.items():
        job = jobs.get(row.job)
        if job is None or job.owner != row.owner or (is_final(State(job.state)) and row.until <= now):
            free.append(rows[key])
        else:
            answers[firsts[key]] = Receipt(job.id, job.key, State(job.state), job.created_at, duplicate=True)
    if free:
        tx.run(_TAKE_OVER, rows=free)


def _point(
    tx: Transaction,
    submissions: Sequence[Submission],
    answers: Sequence[Receipt | Exception | None],
    firsts: dict[Key, int],
    twins: dict[int, int],
) -> None:
    rows = []
    for place, first in [*((place, place) for place in firsts.values()), *twins.items()]:
        submission, answer = submissions[place], answers[first]
        job = answer.id if isinstance(answer, Receipt) else submissions[first].id
        if submission.idempotency_key is not None and job != submission.id:
            rows.append({"owner": submission.owner, "key": submission.idempotency_key, "job": job})
    if rows:
        tx.run(_POINT_KEYS, rows=rows)


def _row(submission: Submission, now: int) -> dict[str, Any]:
    unique = submission.unique
    assert unique is not None
    return {
        "owner": submission.owner, "task": submission.task, "key": unique.key, "job": submission.id,
        "until": now + int(unique.seconds * 1_000_000),
    }  # fmt: skip
