"""Random lives of jobs against a model; and broken ledgers, each of which the model or the oracle must notice.

CELERIAC_SEQUENCES=5000 plays that many random lives of 50 steps; by default there are 500, the same each time.
"""

import importlib
import os
from collections import Counter
from statistics import mean
from typing import Any

import pytest
from databases import on_sqlite
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from oracle import violations

from celeriac.jobs import Kind
from celeriac.ledger import Ledger, Transaction, batches, operations, pruning, upkeep
from celeriac.ledger.sql import Sql
from celeriac.states import MOVES, State
from conformance.life.machine import Life, Seen
from conformance.moves import accept, end, running, success

# `celeriac.ledger.moves.finish` names the function; these are the modules.
CHORDS, CLAIM, FINISH, REQUESTS, REVIVE, SUBMIT, UNIQUE = (
    importlib.import_module(f"celeriac.ledger.moves.{name}")
    for name in ("chords", "claim", "finish", "requests", "revive", "submit", "unique")
)
SEQUENCES = os.environ.get("CELERIAC_SEQUENCES")
LIVES, STEPS = int(SEQUENCES or 500), 50
# Hypothesis tries how it is to stop after a few steps, once for each of them: so some more. The first step only begins.
PLAY = settings(
    max_examples=LIVES * 11 // 10, stateful_step_count=STEPS + 1, deadline=None, database=None,
    derandomize=not SEQUENCES, suppress_health_check=list(HealthCheck),
)  # fmt: skip

MOVED = {f"{before} -> {after}" for before, moves in MOVES.items() for after in moves}
# Sent is what is only observed (test_observe.py); files there are none yet.
WRITTEN = {str(kind) for kind in Kind} - {Kind.SENT, Kind.FILE}
ANSWERED = {
    *(f"submit: {word}" for word in ("fresh", "replayed", "duplicate", "IdempotencyMismatch", "JobExists")),
    *(f"batch: {word}" for word in ("fresh", "replayed", "duplicate", "batch replayed")),
    *(f"claim: {word}" for word in ("something", "nothing", "a ghost gets nothing")),
    *(f"{report}: {held}" for report in ("start", "report") for held in (True, False)),
    *(f"end as {kind}: {held}" for kind in ("succeeded", "failed", "cancelled") for held in (True, False)),
    *(f"end as {kind}: {held}" for kind in ("retrying", "rescued", "given-back") for held in (True, False)),
    *(f"cancel: {word}" for word in ("cancelled", "running", "JobFinal")),
    *(f"reopen: {word}" for word in ("queued", "JobNotFinal", "JobSucceeded", "JobNeverRan", "JobKeyTaken")),
    *("cancel operation done", "retry operation done", "pruned", "member kept"),
    *("chord fired", "chord failed", "canvas done", "canvas given up", "revived"),
}


def play(ledger: Ledger, fake_clock, how: settings = PLAY) -> Seen:
    """Play lives on a ledger that is fast: as the private Postgres does, it may lose all when the machine ends."""
    seen = Seen()
    if ledger.dialect == "sqlite":
        with ledger.writing() as connection:
            _driver(connection).execute("PRAGMA synchronous = OFF")
    with ledger.reading() as connection:
        reader = _driver(connection)
        run_state_machine_as_test(lambda: Life(ledger, reader, fake_clock.advance, seen), settings=how)
    return seen


def _driver(connection) -> Any:
    return connection.connection.driver_connection


def unreached(seen: Seen) -> set[str]:
    """What the lives did not come by: moves, kinds of events, answers."""
    moved = {f"{before} -> {after}" for before, after in seen.moves}
    return (
        (MOVED | WRITTEN | ANSWERED) - moved - set(seen.kinds) - {word for word in seen.answers if seen.answers[word]}
    )


def rewritten(statement: Sql, old: str, new: str) -> Sql:
    """A statement with a part of its text replaced, which must be there."""
    assert old in statement._template
    return Sql(statement._template.replace(old, new), **statement._columns)


@pytest.mark.timeout(600)
def test_random_lives_agree_with_the_model(ledger: Ledger, fake_clock):
    seen = play(ledger, fake_clock)

    assert mean(seen.steps) >= 0.9 * STEPS
    assert sum(steps == STEPS for steps in seen.steps) >= LIVES
    assert LIVES < 500 or unreached(seen) == set()


def test_lives_that_are_blind_are_noticed():
    moves = Counter((before, after) for before in MOVES for after in MOVES[before])
    seen = Seen([], moves, Counter(WRITTEN), Counter(ANSWERED))
    assert unreached(seen) == set()

    del seen.moves[State.RUNNING, State.RETRYING], seen.kinds[Kind.QUARANTINED]
    seen.answers["pruned"] = 0
    assert unreached(seen) == {"running -> retrying", "quarantined", "pruned"}


class Broken:
    """Ways to break the ledger on purpose."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch.setattr

    def fence(self) -> None:
        """Any attempt may end a job that runs."""
        held = rewritten(FINISH._HELD, "jobs.attempt = v.attempt", "v.attempt > 0")
        self._patch(FINISH, "_HELD", rewritten(held, "jobs.key, jobs.attempt,", "jobs.key, v.attempt,"))

    def start_fence(self) -> None:
        self._patch(FINISH, "_START", rewritten(FINISH._START, "jobs.attempt = v.attempt AND", ""))

    def final_states(self) -> None:
        """A job that has ended may end again."""
        self._patch(FINISH, "_HELD", rewritten(FINISH._HELD, "AND jobs.state || '' = 'running'", ""))

    def cancel(self) -> None:
        """A cancelled job may be claimed."""
        for name in ("_ENDS", "_GROUPS", "_CLAIM"):
            loose = rewritten(getattr(CLAIM, name), "n.state = 'queued'", "n.state IN ('queued', 'cancelled')")
            self._patch(CLAIM, name, rewritten(loose, "{by[jobs_waiting]}", ""))

    def attempts(self) -> None:
        """A reopened job counts its attempts anew."""
        self._patch(REQUESTS, "_REOPEN", rewritten(REQUESTS._REOPEN, "executions = 0,", "executions = 0, attempt = 0,"))

    def order(self) -> None:
        """The youngest come first."""
        self._patch(CLAIM, "share", lambda jobs, most, after: sorted(jobs, key=lambda job: -job.key)[:most])

    def counts(self) -> None:
        """What leaves a state is not taken off."""
        count = Transaction.count
        self._patch(Transaction, "count", lambda tx, state, queue, task, jobs: count(tx, state, queue, task, abs(jobs)))

    def events(self) -> None:
        """Nobody writes down that a job was claimed."""
        record = Transaction.record

        def forgetful(tx: Transaction, job: int, number: int, at: int, kind: Kind, data=None) -> None:
            if kind is not Kind.CLAIMED:
                record(tx, job, number, at, kind, data)

        self._patch(Transaction, "record", forgetful)

    def links(self) -> None:
        """A stale attempt sends its links all the same."""
        finish, send_on = FINISH.finish, FINISH._send_on

        def generous(tx: Transaction, outcomes):
            answers = finish(tx, outcomes)
            send_on(tx, [outcome for outcome, held in zip(outcomes, answers, strict=True) if not held])
            return answers

        self._patch("conformance.moves.finish", generous)


class Spoiled(Broken):
    """More ways, of rules that go beyond a single job."""

    def pause(self) -> None:
        """A paused queue is claimed from."""
        for name in ("_ENDS", "_CLAIM", "_CLAIM_THESE"):
            self._patch(CLAIM, name, rewritten(getattr(CLAIM, name), "paused_at IS NOT NULL", "false"))

    def expiry(self) -> None:
        """A job whose expiry has passed may be claimed until somebody looks."""
        for name in ("_GROUPS", "_CLAIM"):
            self._patch(CLAIM, name, rewritten(getattr(CLAIM, name), "n.expires_at > :now", "true"))

    def ghosts(self) -> None:
        """A worker that was given up claims on."""
        for name in ("_CLAIM", "_CLAIM_THESE"):
            loose = rewritten(getattr(CLAIM, name), "COALESCE(lost_at, stopped_at) IS NOT NULL", "false")
            self._patch(CLAIM, name, loose)

    def rescue(self) -> None:
        """Nobody takes jobs from a worker that ended with them."""
        self._patch(upkeep, "_ORPHANS", rewritten(upkeep._ORPHANS, "AND stopped_at IS NULL", ""))

    def deaths(self) -> None:
        self._patch(FINISH, "_END", rewritten(FINISH._END, "jobs.deaths + v.deaths", "jobs.deaths"))

    def max_attempts(self) -> None:
        self._patch(FINISH, "_HELD", rewritten(FINISH._HELD, "max_attempts", "NULL AS max_attempts"))

    def unique_keys(self) -> None:
        self._patch(UNIQUE, "stand", lambda *_: {})

    def lost_keys(self) -> None:
        """A job is opened again though its unique key is another's by now."""
        self._patch(REQUESTS, "regain", lambda *_: {})

    def idempotency_keys(self) -> None:
        self._patch(SUBMIT, "_replay", lambda *_: None)

    def repeated_submits(self) -> None:
        self._patch(SUBMIT, "_repeated", lambda *_: {})

    def batch_keys(self) -> None:
        self._patch(batches, "_replayed", lambda *_: None)

    def chains(self) -> None:
        """What follows a job that failed is not given up."""
        self._patch(FINISH, "behind", lambda *_: [])

    def canvases(self) -> None:
        """A job that goes on as a canvas never comes back."""
        self._patch(REVIVE, "_WAIT", rewritten(REVIVE._WAIT, "run_at IS NULL", "false"))

    def chords(self) -> None:
        """The body runs before the last member has ended."""
        self._patch(CHORDS, "_SIZES", rewritten(CHORDS._SIZES, "COUNT(*)", "COUNT(*) + 1"))

    def failed_chords(self) -> None:
        """A chord whose member is opened again stays failed."""
        self._patch(REQUESTS, "unfire", lambda *_: None)

    def operations(self) -> None:
        """They reach for jobs that came later."""
        self._patch(operations, "_BEGIN", rewritten(operations._BEGIN, "MAX(key)", "MAX(key) + 100"))

    def pruning(self) -> None:
        """Events outlive their jobs."""
        self._patch(pruning, "_DELETE_BELONGINGS", pruning._DELETE_BELONGINGS[:2])

    def pruned_members(self) -> None:
        """Members go before their chord is decided."""
        loose = rewritten(pruning._DELETE_JOBS, "chords.fired_at IS NULL", "false")
        self._patch(pruning, "_DELETE_JOBS", loose)


def notices(ledger: Ledger, fake_clock) -> None:
    """Play until something is noticed, which must be."""
    how = settings(
        PLAY, max_examples=400, phases=[Phase.generate], derandomize=True, report_multiple_bugs=False
    )  # fmt: skip
    with pytest.raises(Exception, match=r".") as noticed:
        play(ledger, fake_clock, how)
    assert not isinstance(noticed.value, TypeError | NameError | AttributeError)


@pytest.mark.parametrize("part", [name for name in vars(Broken) if not name.startswith("_")])
def test_the_oracle_notices_a_ledger_with_broken(
    ledger: Ledger, fake_clock, monkeypatch: pytest.MonkeyPatch, part: str
):
    getattr(Broken(monkeypatch), part)()

    notices(ledger, fake_clock)


@on_sqlite
@pytest.mark.parametrize("part", [name for name in vars(Spoiled) if not name.startswith("_")])
def test_the_model_notices_a_ledger_with_spoiled(
    ledger: Ledger, fake_clock, monkeypatch: pytest.MonkeyPatch, part: str
):
    getattr(Spoiled(monkeypatch), part)()

    notices(ledger, fake_clock)


def test_the_oracle_notices_a_job_that_was_acknowledged_and_is_gone(ledger: Ledger):
    id = accept(ledger)
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM jobs")
        tx.count("queued", "default", "add", -1)

    assert violations(ledger, [id]) == [f"I1: {id} was acknowledged and is gone"]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DELETE FROM events WHERE number = 2", "I9"),
        ("INSERT INTO events (job, number, at, kind) SELECT job, 5, 0, 'succeeded' FROM events LIMIT 1", "I3"),
        ("UPDATE jobs SET state = 'failed'", "I9"),
        ("UPDATE jobs SET state = 'failed'", "I8"),
        ("UPDATE jobs SET state = 'running'", "I2"),
        ("UPDATE jobs SET number = 9", "I9"),
        ("DELETE FROM count_deltas", "I8"),
    ],
)
def test_the_oracle_notices_harm(ledger: Ledger, harm: str, told: str):
    end(ledger, success(running(ledger)))
    assert violations(ledger) == []

    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(harm)

    assert told in {line[:2] for line in violations(ledger)}
