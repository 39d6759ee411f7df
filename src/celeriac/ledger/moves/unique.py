"""Unique jobs: while a key of an owner's task stands for a job, submitting it again answers that job.

A key stands until its job is final and its window is over. Called by `submit` before it writes
anything; whoever comes second with a key, in this transaction or in another one, waits here
until it is known what became of the first. A job that could be opened again remembers that it has
lost its key, and gets it back (`regain`) or has to wait.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from celeriac.errors import LedgerBusy
from celeriac.jobs import Receipt, Submission
from celeriac.ledger.sql import Insert, Sql, as_json
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
_LOSE = Sql(
    "UPDATE jobs SET unique_key = v.lost FROM {rows} WHERE jobs.id = v.id AND jobs.state IN ('failed', 'cancelled')",
    id="text", lost="text",
)  # fmt: skip
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


def regain(tx: Transaction, jobs: Sequence[Any], now: int) -> dict[str, str]:
    """Let the keys that ended jobs have lost stand for them again, as they are to be opened.

    Returns which of them may not be opened, each with the job that holds its key: one that has not ended, or that
    is opened together with it. `jobs` are rows with id, owner and unique_key.
    """
    opened = {job.id for job in jobs if job.unique_key is None}
    rows: dict[Key, dict[str, Any]] = {}
    refused = {}
    for job in jobs:
        if job.unique_key is not None:
            key: Key = (job.owner, *msgspec.json.decode(job.unique_key))
            row = dict(zip(_COLUMNS, (*key, job.id, now), strict=True))
            if rows.setdefault(key, row) is not row:
                refused[job.id] = rows[key]["job"]
    over = {}
    for key, (held, holder) in _held(tx, rows).items():
        if holder is not None and (not is_final(State(holder.state)) or holder.id in opened):
            refused[rows[key]["job"]] = holder.id
        else:
            over[key] = (held, holder)
            rows[key]["until"] = max(held.until, now)
    _hand_over(tx, rows, over)
    return refused


def _answer(
    tx: Transaction,
    submissions: Sequence[Submission],
    answers: list[Receipt | Exception | None],
    firsts: dict[Key, int],
    now: int,
) -> None:
    rows = {key: _row(submissions[place], now) for key, place in sorted(firsts.items())}
    over = {}
    for key, (held, holder) in _held(tx, rows).items():
        if holder is None or (is_final(State(holder.state)) and held.until <= now):
            over[key] = (held, holder)
        else:
            state = State(holder.state)
            answers[firsts[key]] = Receipt(holder.id, holder.key, state, holder.created_at, duplicate=True)
    _hand_over(tx, rows, over)


def _held(tx: Transaction, rows: dict[Key, dict[str, Any]]) -> dict[Key, tuple[Any, Any]]:
    """Enter keys; return those that another job has, with its row, or None when it is gone or not the owner's."""
    entered = tx.run(_TAKE, rows=[rows[key] for key in sorted(rows)]).all() if rows else []
    held = [row for row in entered if row.job != rows[row.owner, row.task, row.key]["job"]]
    jobs = {job.id: job for job in tx.run(_STANDING, each=[row.job for row in held])} if held else {}
    return {
        (row.owner, row.task, row.key): (row, job if job is not None and job.owner == row.owner else None)
        for row in held
        for job in [jobs.get(row.job)]
    }


def _hand_over(tx: Transaction, rows: dict[Key, dict[str, Any]], over: dict[Key, tuple[Any, Any]]) -> None:
    """Let these keys stand for other jobs; who had them, and could be opened again, remembers it."""
    if not over:
        return
    tx.run(_TAKE_OVER, rows=[rows[key] for key in over])
    losers = [
        {"id": holder.id, "lost": as_json(key[1:])}
        for key, (_, holder) in over.items()
        if holder is not None and holder.state != State.SUCCEEDED
    ]
    if losers and tx.run(_LOSE, rows=losers).rowcount != len(losers):
        raise LedgerBusy("A job whose unique key is free was opened again at this very moment. Nothing was accepted.")


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
