"""The rescuer: dead is who has stood still for the whole lease before its own eyes; everybody else is left alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from conformance.moves import accept, begin, counted, kinds, state_of, take_one
from conformance.test_nodes import NODE

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.errors import LedgerUnavailable
from celeriac.keeper.leader import Leader, LeadLost
from celeriac.keeper.rescuer import Rescuer
from celeriac.ledger import Ledger, nodes, read
from celeriac.states import State

LEASE = 10.0


@pytest.fixture
def rescuer(leader: Leader) -> Rescuer:
    return Rescuer(leader, LEASE)


def watch(rescuer: Rescuer, fake_clock, seconds: int, beating: str | None = None) -> None:
    for _ in range(seconds):
        fake_clock.advance(1)
        if beating:
            rescuer._leader.ledger.do(nodes.beat, beating)
        rescuer.tick()


@contextmanager
def outage(ledger: Ledger) -> Iterator[None]:
    """The database is away: every read fails."""

    @contextmanager
    def reading() -> Iterator[None]:
        raise LedgerUnavailable("The database is away.")
        yield

    ledger.reading = reading
    yield
    del ledger.reading


def online(ledger: Ledger) -> list[bool]:
    return [worker.online for worker in read.all_workers(ledger)]


def test_a_worker_that_beats_is_left_alone(ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock):
    id = accept(ledger)
    take_one(ledger, worker=worker)

    watch(rescuer, fake_clock, 60, beating=worker)

    assert online(ledger) == [True]
    assert state_of(ledger, id) is State.RUNNING


def test_a_silent_worker_is_dead_after_the_lease_and_not_before(
    ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock
):
    id = accept(ledger)
    begin(ledger, take_one(ledger, worker=worker))
    rescuer.tick()

    watch(rescuer, fake_clock, 9)
    assert (online(ledger), state_of(ledger, id)) == ([True], State.RUNNING)

    watch(rescuer, fake_clock, 1)
    assert (online(ledger), state_of(ledger, id)) == ([False], State.QUEUED)
    assert kinds(ledger, id)[-1] == "rescued"
    counted(ledger)


def test_one_beat_within_the_lease_is_enough(ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock):
    rescuer.tick()
    for _ in range(5):
        watch(rescuer, fake_clock, 9)
        ledger.do(nodes.beat, worker)
        rescuer.tick()

    assert online(ledger) == [True]


def test_an_outage_of_the_database_kills_nobody(ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock):
    rescuer.tick()
    watch(rescuer, fake_clock, 5)

    with outage(ledger):
        for _ in range(120):
            fake_clock.advance(1)
            with pytest.raises(LedgerUnavailable):
                rescuer.tick()

    rescuer.tick()
    assert online(ledger) == [True]
    watch(rescuer, fake_clock, 60, beating=worker)
    assert online(ledger) == [True]


def test_a_gap_between_two_looks_kills_nobody(ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock):
    """A laptop that slept, a keeper that was frozen: the time between counts as one look at most."""
    rescuer.tick()
    for _ in range(4):
        fake_clock.advance(3600)
        rescuer.tick()
        assert online(ledger) == [True]


def test_a_worker_that_dies_during_a_gap_is_found_by_the_looks_after_it(
    ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock
):
    rescuer.tick()
    fake_clock.advance(3600)

    watch(rescuer, fake_clock, 10)

    assert online(ledger) == [False]


def test_a_new_rescuer_believes_only_what_it_has_seen_itself(ledger: Ledger, leader: Leader, worker: str, fake_clock):
    watch(Rescuer(leader, LEASE), fake_clock, 9)

    fresh = Rescuer(leader, LEASE)
    watch(fresh, fake_clock, 9)

    assert online(ledger) == [True]


def test_a_living_worker_is_not_taken_with_a_dead_one(ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock):
    ledger.do(nodes.register, replace(NODE, id="w2", name="w2"))
    mine, lost = accept(ledger), accept(ledger)
    take_one(ledger, worker=worker)
    take_one(ledger, worker="w2")

    watch(rescuer, fake_clock, 15, beating=worker)

    assert (state_of(ledger, mine), state_of(ledger, lost)) == (State.RUNNING, State.QUEUED)
    assert kinds(ledger, lost)[-1] == "given-back"


def test_what_a_worker_left_behind_when_it_stopped_is_rescued_at_once(ledger: Ledger, rescuer: Rescuer, worker: str):
    id = accept(ledger)
    take_one(ledger, worker=worker)
    ledger.do(nodes.stop, worker)

    rescuer.tick()

    assert state_of(ledger, id) is State.QUEUED


def test_all_orphans_are_rescued_in_one_tick(ledger: Ledger, rescuer: Rescuer):
    ids = [accept(ledger) for _ in range(7)]
    for _ in ids:
        take_one(ledger, worker="nobody")

    rescuer.tick()

    assert {state_of(ledger, id) for id in ids} == {State.QUEUED}


def test_a_keeper_that_lost_the_lead_declares_nobody_dead(
    ledger: Ledger, leader: Leader, rescuer: Rescuer, worker: str, fake_clock
):
    rescuer.tick()
    watch(rescuer, fake_clock, 9)
    with ledger.transaction() as tx:
        assert nodes.campaign(tx, "keeper", "another", nodes.leader(ledger, "keeper")) == 2

    fake_clock.advance(1)
    with pytest.raises(LeadLost):
        rescuer.tick()

    assert online(ledger) == [True]


def test_a_job_that_loses_one_worker_after_the_other_waits_longer_each_time(
    ledger: Ledger, rescuer: Rescuer, fake_clock
):
    """So that one that kills its workers does not take down the next at once."""
    id = accept(ledger)
    states = []
    for _ in range(2):
        begin(ledger, take_one(ledger, worker="nobody"))
        rescuer.tick()
        states.append(state_of(ledger, id))

    assert states == [State.QUEUED, State.RETRYING]
    assert read.job(ledger, SYSTEM, id).run_at == clock.micros() + 2_000_000
    counted(ledger)


def test_nobody_is_taken_for_dead_while_no_connection_is_to_be_had(
    ledger: Ledger, rescuer: Rescuer, worker: str, fake_clock, monkeypatch: pytest.MonkeyPatch
):
    """A worker that lost its connection cannot say that it lives, while the keeper has kept its own."""

    def refuse() -> None:
        raise LedgerUnavailable("too many clients already")

    rescuer.tick()
    with monkeypatch.context() as crowded:
        crowded.setattr(ledger, "knock", refuse)
        watch(rescuer, fake_clock, 9)
        fake_clock.advance(1)
        with pytest.raises(LedgerUnavailable):
            rescuer.tick()
    watch(rescuer, fake_clock, 9)
    assert online(ledger) == [True]

    watch(rescuer, fake_clock, 2)
    assert online(ledger) == [False]


class Hasty(Rescuer):
    """Judges by the time that has passed, whoever looked."""

    def dead(self, counters):
        now, before = clock.monotonic(), self._silence
        self._silence = {
            worker: before[worker] if before.get(worker, (None,))[0] == counter else (counter, now)
            for worker, counter in counters.items()
        }
        return [worker for worker, (_, since) in self._silence.items() if now - since >= self._lease_seconds]


def test_the_oracle_notices_a_rescuer_that_counts_an_outage(ledger: Ledger, leader: Leader, worker: str, fake_clock):
    hasty = Hasty(leader, LEASE)
    hasty.tick()

    with pytest.raises(AssertionError):
        test_an_outage_of_the_database_kills_nobody(ledger, hasty, worker, fake_clock)
