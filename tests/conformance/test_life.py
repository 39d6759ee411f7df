"""Random lives of jobs against a model; and broken ledgers, each of which the model or the oracle must notice.

CELERIAC_SEQUENCES=5000 plays that many random sequences; by default there are 500, the same each time.
"""

import importlib
import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from oracle import violations

from celeriac.jobs import Kind
from celeriac.ledger import Ledger, Transaction
from celeriac.ledger.sql import Sql
from conformance.life import Life
from conformance.moves import accept, end, running, success

# `celeriac.ledger.moves.finish` names the function; these are the modules.
CLAIM, FINISH, REQUESTS = (
    importlib.import_module(f"celeriac.ledger.moves.{name}") for name in ("claim", "finish", "requests")
)
SEQUENCES = os.environ.get("CELERIAC_SEQUENCES")
PLAY = settings(
    max_examples=int(SEQUENCES or 500), stateful_step_count=50, deadline=None, database=None,
    derandomize=not SEQUENCES, suppress_health_check=list(HealthCheck),
)  # fmt: skip


def play(ledger: Ledger, fake_clock, how: settings = PLAY) -> None:
    run_state_machine_as_test(lambda: Life(ledger, fake_clock.advance), settings=how)


def rewritten(statement: Sql, old: str, new: str) -> Sql:
    """A statement with a part of its text replaced, which must be there."""
    assert old in statement._template
    return Sql(statement._template.replace(old, new), **statement._columns)


def test_random_lives_agree_with_the_model(ledger: Ledger, fake_clock):
    play(ledger, fake_clock)


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


@pytest.mark.parametrize("part", [name for name in vars(Broken) if not name.startswith("_")])
def test_the_oracle_notices_a_ledger_with_broken(
    ledger: Ledger, fake_clock, monkeypatch: pytest.MonkeyPatch, part: str
):
    getattr(Broken(monkeypatch), part)()

    with pytest.raises(Exception, match=r".") as noticed:
        play(ledger, fake_clock, settings(PLAY, max_examples=200, phases=[Phase.generate], derandomize=True))
    assert not isinstance(noticed.value, TypeError | NameError | AttributeError)


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
