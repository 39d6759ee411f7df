"""The duties of falling due, forgetting and adding up, one tick at a time; and the loop that takes the ticks."""

from collections.abc import Iterator, Sequence

import pytest
from conformance.moves import (
    BOOM,
    SECOND,
    accept,
    counted,
    kinds,
    look,
    select,
    state_of,
    submission,
    submit_all,
    take,
)
from databases import on_postgres

from celeriac import clock
from celeriac.errors import LedgerUnavailable
from celeriac.keeper import due, pruner, tally
from celeriac.keeper.due import Due
from celeriac.keeper.leader import Leader
from celeriac.keeper.loop import Loop
from celeriac.keeper.pruner import Pruner
from celeriac.keeper.tally import Tally
from celeriac.ledger import Ledger, Transaction, counts, pruning
from celeriac.settings import Settings
from celeriac.states import State

# Due


def test_due_sleeps_until_the_next_moment(ledger: Ledger, leader: Leader):
    duty = Due(leader)
    assert duty.tick() == due.LOOK_SECONDS

    accept(ledger, run_at=clock.micros() + 250_000)
    assert duty.tick() == 0.25
    accept(ledger, expires_at=clock.micros() + 100_000)
    assert duty.tick() == 0.1


def test_due_looks_up_in_time_even_if_the_next_moment_is_far(ledger: Ledger, leader: Leader):
    accept(ledger, run_at=clock.micros() + 3600 * SECOND)

    assert Due(leader).tick() == due.LOOK_SECONDS


def test_due_queues_what_is_due_and_cancels_what_has_expired(ledger: Ledger, leader: Leader, fake_clock):
    soon, gone = accept(ledger, run_at=clock.micros() + SECOND), accept(ledger, expires_at=clock.micros() + SECOND)
    both = accept(ledger, run_at=clock.micros() + SECOND, expires_at=clock.micros() + SECOND)
    fake_clock.advance(1)

    Due(leader).tick()

    assert [state_of(ledger, id) for id in (soon, gone, both)] == [State.QUEUED, State.CANCELLED, State.CANCELLED]
    assert look(ledger, gone).failure.code == "expired"
    counted(ledger)


def test_due_comes_back_at_once_while_there_is_more(ledger: Ledger, leader: Leader, fake_clock, monkeypatch):
    monkeypatch.setattr(due, "BATCH", 2)
    submit_all(ledger, *(submission(run_at=clock.micros() + n + 1) for n in range(5)))
    fake_clock.advance(1)
    duty = Due(leader)

    pauses = [duty.tick() for _ in range(3)]

    assert pauses == [0, 0, due.LOOK_SECONDS]
    assert len(take(ledger, 10)) == 5


@on_postgres
def test_due_waits_for_what_somebody_elses_transaction_holds(ledger: Ledger, leader: Leader, fake_clock):
    accept(ledger, run_at=clock.micros() + SECOND)
    fake_clock.advance(2)
    with ledger.reading() as stranger:
        stranger.exec_driver_sql("BEGIN")
        stranger.exec_driver_sql("SELECT 1 FROM jobs FOR UPDATE")
        assert Due(leader).tick() == due.LOOK_SECONDS
        stranger.exec_driver_sql("ROLLBACK")


def test_due_takes_no_turn_to_write_when_nothing_is_due(ledger: Ledger, leader: Leader):
    accept(ledger, run_at=clock.micros() + SECOND)
    told = []
    ledger.announce = told.append

    Due(leader).tick()

    assert told == []


# Pruner


def test_jobs_go_after_their_days_and_events_after_theirs(ledger: Ledger, leader: Leader, fake_clock):
    id = accept(ledger, failure=BOOM)
    waiting = accept(ledger)
    duty = Pruner(leader, job_days=30, event_days=7)

    fake_clock.advance(86_400 * 6)
    assert duty.tick() == pruner.LOOK_SECONDS
    assert kinds(ledger, id) == ["submitted", "failed"]

    fake_clock.advance(86_400 * 2)
    assert duty.tick() == pruner.PAUSE_SECONDS
    assert select(ledger, "SELECT DISTINCT id FROM events JOIN jobs ON key = job") == [(waiting,)]
    assert duty.tick() == pruner.LOOK_SECONDS
    assert state_of(ledger, id) is State.FAILED

    fake_clock.advance(86_400 * 23)
    duty.tick()
    assert select(ledger, "SELECT id FROM jobs") == [(waiting,)]
    counted(ledger)


def test_the_pruner_goes_in_small_batches(ledger: Ledger, leader: Leader, fake_clock, monkeypatch):
    monkeypatch.setattr(pruner, "BATCH", 2)
    monkeypatch.setattr(pruner, "BATCH_MAX", 2)
    submit_all(ledger, *(submission(failure=BOOM) for _ in range(5)))
    fake_clock.advance(86_400 * 40)
    duty = Pruner(leader, job_days=30, event_days=7)

    left = []
    while duty.tick() != pruner.LOOK_SECONDS:
        left += select(ledger, "SELECT COUNT(*) FROM jobs")

    assert left == [(3,), (1,), (0,)]


def test_the_pruner_rests_nine_times_as_long_as_it_works(ledger: Ledger, leader: Leader, fake_clock, monkeypatch):
    submit_all(ledger, *(submission(failure=BOOM) for _ in range(100)))
    fake_clock.advance(86_400 * 40)
    prune = pruning.prune_jobs
    monkeypatch.setattr(pruning, "prune_jobs", lambda *given: fake_clock.advance(0.007) or prune(*given))
    duty = Pruner(leader, job_days=30, event_days=7)

    assert duty.tick() == pytest.approx(9 * 0.007)
    monkeypatch.setattr(pruning, "prune_jobs", prune)
    assert duty.tick() == pruner.PAUSE_SECONDS


def test_a_step_that_took_too_long_makes_the_next_ones_smaller(ledger: Ledger, leader: Leader, fake_clock, monkeypatch):
    submit_all(ledger, *(submission(failure=BOOM) for _ in range(100)))
    fake_clock.advance(86_400 * 40)
    prune = pruning.prune_jobs

    def slowly(tx: Transaction, keys: Sequence[int], before: int) -> int:
        fake_clock.advance(len(keys) * 0.001)
        return prune(tx, keys, before)

    monkeypatch.setattr(pruning, "prune_jobs", slowly)
    monkeypatch.setitem(pruner.STEP_SECONDS, ledger.dialect, 0.008)
    duty = Pruner(leader, job_days=30, event_days=7)

    left = []
    while duty.tick() != pruner.LOOK_SECONDS:
        left += [jobs for (jobs,) in select(ledger, "SELECT COUNT(*) FROM jobs")]

    assert left[:4] == [50, 42, 34, 26]  # 50 took 50 ms; 8 take the 8 ms they may


def test_a_keeper_that_takes_over_goes_on_where_events_were_left(
    ledger: Ledger, leader: Leader, fake_clock, monkeypatch
):
    monkeypatch.setattr(pruner, "BATCH", 1)
    monkeypatch.setattr(pruner, "BATCH_MAX", 1)
    for _ in range(8):
        accept(ledger, failure=BOOM)
        fake_clock.advance(86_400)
    fake_clock.advance(86_400 * 4.5)
    first, ticks = Pruner(leader, job_days=30, event_days=7), 1
    while first.tick() != pruner.LOOK_SECONDS:
        ticks += 1
    assert ticks == 7
    fake_clock.advance(86_400)

    second, ticks = Pruner(leader, job_days=30, event_days=7), 1
    while second.tick() != pruner.LOOK_SECONDS:
        ticks += 1

    assert ticks <= 3  # one more day, the job before it, and nothing more
    assert select(ledger, "SELECT COUNT(*) FROM events") == [(2,)]


def test_a_known_key_is_forgotten_with_its_job(ledger: Ledger, leader: Leader, fake_clock):
    accept(ledger, failure=BOOM, idempotency_key="k", fingerprint="f")
    duty = Pruner(leader, job_days=30, event_days=7)
    fake_clock.advance(86_400 * 31)

    while duty.tick() != pruner.LOOK_SECONDS:
        pass

    assert select(ledger, "SELECT * FROM idempotency") == []


# Tally


def test_the_tally_folds_and_then_has_nothing_to_do(ledger: Ledger, leader: Leader):
    for _ in range(3):
        accept(ledger)
    told = []
    duty = Tally(leader)

    duty.tick()
    ledger.announce = told.append
    duty.tick()

    assert not counts.any_delta(ledger)
    assert told == []
    assert counted(ledger) == {("queued", "default", "add"): 3}


def test_the_tally_goes_in_steps_while_there_is_much(ledger: Ledger, leader: Leader, monkeypatch):
    monkeypatch.setattr(tally, "BATCH", 2)
    for _ in range(3):
        accept(ledger)
    duty = Tally(leader)

    assert duty.tick() == tally.PAUSE_SECONDS
    assert select(ledger, "SELECT COUNT(*) FROM count_deltas") == [(1,)]
    assert duty.tick() == tally.LOOK_SECONDS
    assert not counts.any_delta(ledger)


# The loop


@pytest.fixture
def loop(ledger_url: str) -> Iterator[Loop]:
    loop = Loop(Settings(database_url=ledger_url))
    yield loop
    loop._listener.close()
    loop.leader.ledger.close()


def test_one_step_elects_and_does_every_duty(loop: Loop):
    ledger = loop.leader.ledger
    late = accept(ledger, run_at=clock.micros() + 1)
    take(ledger)
    id = accept(ledger)
    take(ledger, worker="nobody")

    assert loop.step() >= 0

    assert loop.leader.leads
    assert state_of(ledger, id) is State.QUEUED
    assert state_of(ledger, late) is State.QUEUED


def test_a_duty_that_fails_is_logged_and_the_others_go_on(loop: Loop, monkeypatch, caplog):
    def fails() -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(loop._due, "tick", fails)
    ledger = loop.leader.ledger
    accept(ledger)

    loop.step()

    assert "Due failed and is tried again" in caplog.text
    assert select(ledger, "SELECT SUM(jobs) FROM counts") == [(1,)]


def test_a_loop_that_is_told_to_stop_gives_up_the_lead(loop: Loop):
    loop.step()
    loop.stop()

    loop.run()

    assert select(loop.leader.ledger, "SELECT released FROM leaders") == [(1,)]
    assert not loop.leader.leads


def test_an_announced_moment_wakes_the_duty_it_concerns(loop: Loop):
    loop.step()
    loop._next[loop._due] = clock.monotonic() + 3600

    accept(loop.leader.ledger, run_at=clock.micros() + 3600 * SECOND)
    loop._wait(30)

    assert loop._next[loop._due] == 0.0


def test_an_announcement_that_may_have_been_lost_wakes_it_as_well(loop: Loop):
    loop.step()
    loop._next[loop._due] = loop._next[loop._operator] = clock.monotonic() + 3600

    loop._listener.poke()  # as a listener does that was cut off for a while
    loop._wait(30)

    assert (loop._next[loop._due], loop._next[loop._operator]) == (0.0, 0.0)


def test_a_ledger_that_is_away_is_told_once_and_once_more_when_it_is_back(loop: Loop, caplog):
    def away() -> float:
        raise LedgerUnavailable("The server is gone.")

    for tick in (away, away, away, lambda: 1.0, lambda: 1.0):
        loop._guard(tick, "Rescue")

    assert [record.getMessage() for record in caplog.records] == [
        "Rescue and all else waits: The server is gone.",
        "The ledger can be used again.",
    ]
