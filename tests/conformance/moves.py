"""Moves and looks in the words of the tests: submit, claim and end jobs with as few words as possible.

Every helper takes the ledger first and makes its move in a transaction of its own.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.jobs import (
    Claimed,
    ClaimRequest,
    Failure,
    Job,
    Kind,
    Message,
    Outcome,
    Receipt,
    Start,
    Submission,
    new_id,
)
from celeriac.ledger import Ledger, Move, claim, finish, read, start, submit
from celeriac.ledger.sql import as_json
from celeriac.states import State

WORKER = "w1@host/1"
SECOND = 1_000_000
MESSAGE = Message('{"task":"add","retries":0}', '{"priority":0}', "[[1,2],{},{}]")
FINAL_KINDS = {Kind.SUCCEEDED, Kind.FAILED, Kind.CANCELLED, Kind.QUARANTINED}
BOOM = Failure("raised", "ValueError", "boom", "Traceback …", '{"exc_type":"ValueError"}')


def submission(**changes: Any) -> Submission:
    """A Submission of Ann's to add two numbers, with changes."""
    plain = Submission(id=new_id(), task="add", queue="default", owner="ann", message=MESSAGE)
    return replace(plain, **changes)


def accept(ledger: Ledger, **changes: Any) -> str:
    """Submit a job; return its id."""
    receipt: Receipt = ledger.do(submit, submission(**changes))
    return receipt.id


def submit_all(ledger: Ledger, *submissions: Submission) -> list[Receipt | Exception]:
    """Submit in one batch."""
    with ledger.transaction() as tx:
        return submit(tx, submissions)


def take(
    ledger: Ledger,
    limit: int = 1,
    worker: str = WORKER,
    queues: Sequence[str] = ("default",),
    tasks: Sequence[str] = ("add",),
) -> list[Claimed]:
    """Claim up to `limit` jobs."""
    return ledger.do(claim, ClaimRequest(worker, tuple(queues), as_json(tasks), limit))


def take_one(ledger: Ledger, **changes: Any) -> Claimed:
    """Claim a job that must be there."""
    [job] = take(ledger, 1, **changes)
    return job


def begin(ledger: Ledger, job: Claimed) -> bool:
    """Note that user code of an attempt began."""
    return ledger.do(start, Start(job.key, job.attempt, clock.micros()))


def running(ledger: Ledger, **changes: Any) -> Claimed:
    """Submit a job, claim it and begin it."""
    id = accept(ledger, **changes)
    job = take_one(ledger, queues=[changes.get("queue", "default")], tasks=[changes.get("task", "add")])
    assert job.id == id
    begin(ledger, job)
    return job


def outcome(job: Claimed, state: State, kind: Kind, **changes: Any) -> Outcome:
    """How an attempt ended."""
    return Outcome(job.key, job.id, job.attempt, job.task, job.queue, state, clock.micros(), kind, **changes)


def success(job: Claimed, result: str = "3", **changes: Any) -> Outcome:
    return outcome(job, State.SUCCEEDED, Kind.SUCCEEDED, result=result, preview=result, **changes)


def failure(job: Claimed, **changes: Any) -> Outcome:
    return outcome(job, State.FAILED, Kind.FAILED, **{"failure": BOOM, **changes})


def retry(job: Claimed, seconds: float = 0, **changes: Any) -> Outcome:
    run_at = clock.micros() + int(seconds * SECOND)
    return outcome(job, State.RETRYING, Kind.RETRYING, **{"failure": BOOM, "run_at": run_at, **changes})


def given_back(job: Claimed, **changes: Any) -> Outcome:
    return outcome(job, State.QUEUED, Kind.GIVEN_BACK, **changes)


def roll_back(ledger: Ledger, move: Move[Any, Any], *items: Any) -> list[Any]:
    """Make a move in a transaction that fails right before its commit; return what it answered."""
    answers: list[Any] = []
    with contextlib.suppress(ZeroDivisionError), ledger.transaction() as tx:
        answers = move(tx, items)
        tx.flush()
        raise ZeroDivisionError
    return answers


def end(ledger: Ledger, *outcomes: Outcome) -> list[bool | Exception]:
    """Report outcomes in one batch."""
    with ledger.transaction() as tx:
        return finish(tx, outcomes)


def look(ledger: Ledger, id: str) -> Job:
    """The whole job, seen by the system."""
    return read.job(ledger, SYSTEM, id)


def state_of(ledger: Ledger, id: str) -> State:
    return read.summary(ledger, SYSTEM, id).state


def kinds(ledger: Ledger, id: str) -> list[str]:
    """The kinds of a job's events, which must be numbered from 1 without a gap up to the job's own number."""
    events = read.history(ledger, SYSTEM, id, 0, 1000)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert len(events) == read.summary(ledger, SYSTEM, id).number
    return [event.kind for event in events]


def select(ledger: Ledger, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a query of the test's own."""
    with ledger.reading() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def recount(ledger: Ledger) -> dict[tuple[str, str, str], int]:
    """The counts as the jobs themselves say."""
    rows = select(ledger, "SELECT state, queue, task, COUNT(*) FROM jobs GROUP BY state, queue, task")
    return {(state, queue, task): jobs for state, queue, task, jobs in rows}


def counted(ledger: Ledger) -> dict[tuple[str, str, str], int]:
    """The counts as the ledger keeps them, which must equal a recount."""
    with ledger.reading() as connection:
        kept = read.all_counts(connection)
    assert kept == recount(ledger)
    return kept
