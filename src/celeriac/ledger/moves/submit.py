"""Submit: a Submission becomes a row, its payload and its first event, all or nothing.

Every way in ends here: HTTP, `.delay()` anywhere, the next link of a chain, the body of a
chord, a message of a stranger. Next: claim.py, where a worker takes the job.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from celeriac import clock
from celeriac.errors import IdempotencyMismatch, JobExists, LedgerBusy
from celeriac.jobs import Kind, Receipt, Submission
from celeriac.ledger.moves import unique
from celeriac.ledger.moves.revive import revive
from celeriac.ledger.sql import Insert, Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State

_KEY_COLUMNS = {"owner": "text", "key": "text", "fingerprint": "text", "job": "text", "created_at": "int"}
# The first to enter a key has it. On Postgres a second one waits here until the first has committed.
_TAKE_KEYS = Insert("idempotency", "ON CONFLICT (owner, key) DO NOTHING RETURNING owner, key", **_KEY_COLUMNS)
_KNOWN_KEYS = Sql(
    "SELECT k.owner, k.key, k.fingerprint, k.job, j.key AS job_key, j.state, j.created_at"
    " FROM idempotency AS k JOIN {rows} ON k.owner = v.owner AND k.key = v.key LEFT JOIN jobs AS j ON j.id = k.job",
    owner="text", key="text",
)  # fmt: skip
_TAKE_OVER_KEYS = Sql(
    "UPDATE idempotency SET fingerprint = v.fingerprint, job = v.job, created_at = v.created_at FROM {rows}"
    " WHERE idempotency.owner = v.owner AND idempotency.key = v.key AND idempotency.job = v.pruned",
    **_KEY_COLUMNS, pruned="text",
)  # fmt: skip
# What of a job never changes, or only when it goes on as another task.
_THERE = Sql(
    "SELECT id, key, state, created_at, finished_at, owner, task, tags, batch, root, parent, group_id, body"
    " FROM jobs JOIN payloads ON payloads.job = jobs.key WHERE id IN ({each})"
)
_SAME = ("owner", "task", "tags", "batch", "root", "parent", "group_id")
REPEAT_MICROS = 3600 * 1_000_000
_DROP_KEYS = Sql("DELETE FROM idempotency WHERE job IN ({each})")
_COLUMNS = {
    "id": "text", "task": "text", "state": "text", "queue": "text", "priority": "int", "owner": "text",
    "cost": "int", "max_attempts": "int", "rerun": "int", "number": "int", "args": "text", "tags": "text",
    "created_at": "int", "run_at": "int", "expires_at": "int", "finished_at": "int", "parent": "text",
    "root": "text", "group_id": "text", "group_index": "int", "chord": "text", "schedule": "text",
    "error_code": "text", "error_type": "text", "error_message": "text", "batch": "text", "observed": "int",
}  # fmt: skip
_INSERT_JOBS = Insert("jobs", "ON CONFLICT (id) DO NOTHING RETURNING key, id", **_COLUMNS)
_INSERT_PAYLOADS = Insert(
    "payloads", job="int", headers="text", properties="text", body="text", traceback="text", exception="text"
)
_INSERT_TAGS = Insert("tags", "ON CONFLICT DO NOTHING", tag="text", job="int")


def submit(tx: Transaction, submissions: Sequence[Submission]) -> list[Receipt | Exception]:
    """Accept jobs. Answers a Receipt for each, or JobExists or IdempotencyMismatch.

    Safe to repeat: the same job of the same owner under the same id answers what it was answered first (`replayed`),
    unless that has ended and is older than an hour. Another job under an id that is taken is refused.
    A known Idempotency-Key of the same owner with the same fingerprint answers the first job
    again (`replayed`), a unique key that stands for a job answers that job (`duplicate`); the
    same holds within one batch.
    """
    answers: list[Receipt | Exception | None] = [None] * len(submissions)
    keyed = _keyed(submissions)
    repeats = {place: places[0] for places in keyed.values() for place in places[1:]} if keyed else {}
    if keyed:
        _replay(tx, submissions, keyed, answers)
    fresh = [place for place, answer in enumerate(answers) if answer is None and place not in repeats]
    now = clock.micros()
    twins = unique.stand(tx, submissions, answers, fresh, now)
    fresh = [place for place in fresh if answers[place] is None and place not in twins]
    receipts = _insert(tx, [submissions[place] for place in fresh], now)
    for place, receipt in zip(fresh, receipts, strict=True):
        answers[place] = receipt
    for place, first in twins.items():
        receipt = answers[first] or JobExists(submissions[first].id)
        answers[place] = replace(receipt, duplicate=True) if isinstance(receipt, Receipt) else receipt
    for place, first in repeats.items():
        if answers[place] is None:
            answers[place] = _replayed(submissions[place], submissions[first], answers[first])
    return [answer for answer in answers if answer is not None]


def _keyed(submissions: Sequence[Submission]) -> dict[tuple[str, str], list[int]]:
    """Return the places at which each owner's Idempotency-Key stands."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, submission in enumerate(submissions):
        if submission.idempotency_key is not None:
            places.setdefault((submission.owner, submission.idempotency_key), []).append(place)
    return places


def _replay(
    tx: Transaction,
    submissions: Sequence[Submission],
    keyed: dict[tuple[str, str], list[int]],
    answers: list[Receipt | Exception | None],
) -> None:
    """Enter the Idempotency-Keys, and answer the submissions whose keys are known."""
    rows = {key: _key_row(submissions[places[0]]) for key, places in sorted(keyed.items())}
    taken = {(row.owner, row.key) for row in tx.run(_TAKE_KEYS, rows=list(rows.values()))}
    if len(taken) == len(rows):
        return
    pruned = []
    for row in tx.run(_KNOWN_KEYS, rows=[row for key, row in rows.items() if key not in taken]):
        if row.job_key is None:
            pruned.append({**rows[row.owner, row.key], "pruned": row.job})
            continue
        for place in keyed[row.owner, row.key]:
            if row.fingerprint == submissions[place].fingerprint:
                answers[place] = Receipt(row.job, row.job_key, State(row.state), row.created_at, replayed=True)
            else:
                answers[place] = IdempotencyMismatch(row.key)
    if pruned and tx.run(_TAKE_OVER_KEYS, rows=pruned).rowcount != len(pruned):
        raise LedgerBusy("Somebody else uses the same Idempotency-Key at this very moment. Nothing was accepted.")


def _key_row(submission: Submission) -> dict[str, Any]:
    return {
        "owner": submission.owner, "key": submission.idempotency_key, "fingerprint": submission.fingerprint,
        "job": submission.id, "created_at": clock.micros(),
    }  # fmt: skip


def _replayed(again: Submission, first: Submission, answer: Receipt | Exception | None) -> Receipt | Exception:
    if again.fingerprint != first.fingerprint:
        return IdempotencyMismatch(again.idempotency_key or "")
    if isinstance(answer, Receipt):
        return replace(answer, replayed=True)
    return answer or JobExists(first.id)


def _insert(tx: Transaction, submissions: Sequence[Submission], now: int) -> list[Receipt | Exception]:
    if not submissions:
        return []
    rows, payloads = [_row(submission, now) for submission in submissions], []
    keys = _enter(tx, rows)
    known = [place for place, submission in enumerate(submissions) if submission.id not in keys]
    repeated = _repeated(tx, submissions, known, rows, now) if known else {}
    unique.drop(tx, [submissions[place] for place in repeated], now)  # a key entered only now, the first had not
    revived = revive(tx, [submissions[place] for place in known], now) if known else {}
    tags, refused = [], []
    answers: list[Receipt | Exception] = []
    taken = set()
    for place, (submission, row) in enumerate(zip(submissions, rows, strict=True)):
        key = keys.get(submission.id)
        there = revived.get(submission.id) or repeated.get(place)
        if there is not None:
            answers.append(there)
            continue
        if key is None or submission.id in taken:
            exists = Receipt(submission.id, 0, State(row["state"]), now) if submission.existing_ok else None
            answers.append(exists or JobExists(submission.id))
            refused.append(submission)
            continue
        taken.add(submission.id)
        answers.append(Receipt(submission.id, key, State(row["state"]), now))
        payloads.append(_payload(key, submission))
        tags += [{"tag": tag, "job": key} for tag in submission.tags]
        _tell(tx, key, submission, row, now)
    if payloads and tx.load(_INSERT_PAYLOADS, payloads) is None:
        tx.write(_INSERT_PAYLOADS, rows=payloads)
    if tags:
        tx.write(_INSERT_TAGS, rows=tags)
    if refused:
        _drop_keys(tx, refused, now)
    return answers


def _enter(tx: Transaction, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Write the rows of new jobs; return the key of each by its id, except where the id is taken."""
    keys = tx.load(_INSERT_JOBS, rows, key="key")
    if keys is not None:
        return {row["id"]: key for row, key in zip(rows, keys, strict=True)}
    return {row.id: row.key for row in tx.run(_INSERT_JOBS, rows=rows)}


def _repeated(
    tx: Transaction, submissions: Sequence[Submission], places: Sequence[int], rows: Sequence[dict[str, Any]], now: int
) -> dict[int, Receipt]:
    """Return, by place, the receipts of jobs whose submit is repeated, because the answer to the first was lost."""
    there: dict[str, Any] = {row.id: row for row in tx.run(_THERE, each=[submissions[place].id for place in places])}
    return {
        place: Receipt(row.id, row.key, State(row.state), row.created_at, replayed=True)
        for place in places
        if (row := there.get(submissions[place].id)) is not None
        and row.body == submissions[place].message.body
        and all(getattr(row, name) == rows[place][name] for name in _SAME)
        and (row.finished_at is None or row.created_at > now - REPEAT_MICROS)
    }


def _drop_keys(tx: Transaction, refused: Sequence[Submission], now: int) -> None:
    """Let no key stand for a job that was not accepted."""
    keyed = [submission.id for submission in refused if submission.idempotency_key is not None]
    if keyed:
        tx.run(_DROP_KEYS, each=keyed)
    unique.drop(tx, refused, now)


def _row(submission: Submission, now: int) -> dict[str, Any]:
    failure = submission.failure
    if failure is not None:
        state = submission.ends_as
    elif submission.run_at is not None and submission.run_at > now:
        state = State.SCHEDULED
    else:
        state = State.QUEUED
    return {
        "id": submission.id,
        "task": submission.task,
        "state": state,
        "queue": submission.queue,
        "priority": submission.priority,
        "owner": submission.owner,
        "cost": submission.cost,
        "max_attempts": submission.max_attempts,
        "rerun": int(submission.rerun),
        "number": 2 if failure else 1,
        "args": submission.args,
        "tags": as_json(submission.tags) if submission.tags else None,
        "created_at": now,
        "run_at": submission.run_at,
        "expires_at": submission.expires_at,
        "finished_at": now if failure else None,
        "parent": submission.parent,
        "root": submission.root,
        "group_id": submission.group,
        "group_index": submission.group_index,
        "chord": submission.chord,
        "schedule": submission.schedule,
        "error_code": failure and failure.code,
        "error_type": failure and failure.type,
        "error_message": failure and failure.message,
        "batch": submission.batch,
        "observed": int(submission.observed),
    }


def _payload(key: int, submission: Submission) -> dict[str, Any]:
    message, failure = submission.message, submission.failure
    return {
        "job": key,
        "headers": message.headers,
        "properties": message.properties,
        "body": message.body,
        "traceback": failure and failure.traceback,
        "exception": failure and failure.celery,
    }


def _tell(tx: Transaction, key: int, submission: Submission, row: dict[str, Any], now: int) -> None:
    state = row["state"]
    tx.count(state, submission.queue, submission.task, 1)
    tx.record(key, 1, now, Kind.SUBMITTED)
    if submission.failure is not None:
        tx.record(key, 2, now, Kind(state), {"code": submission.failure.code})
        tx.ends[submission.id] = 2
    elif state is State.SCHEDULED:
        tx.wait_until(submission.run_at)
    elif not submission.observed:
        tx.wake(submission.queue, submission.id)
    if submission.expires_at is not None and submission.failure is None:
        tx.wait_until(submission.expires_at)
