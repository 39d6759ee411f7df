"""One keeper leads; another takes over only from one that has been silent for the whole lease, and fences it off."""

import pytest
from conformance.moves import select, submission

from celeriac.errors import LedgerUnavailable
from celeriac.keeper.leader import Leader, LeadLost
from celeriac.ledger import Ledger, submit
from keeper.conftest import LEASE


@pytest.fixture
def other(leader: Leader, ledger: Ledger) -> Leader:
    """A second keeper, which has looked once."""
    other = Leader(ledger, LEASE)
    other.tick()
    assert not other.leads
    return other


def watch(other: Leader, fake_clock, seconds: int) -> None:
    for _ in range(seconds):
        fake_clock.advance(1)
        other.tick()


def test_the_first_keeper_leads_at_once(leader: Leader):
    assert (leader.leads, leader.term) == (True, 1)


def test_a_leader_that_renews_stays(leader: Leader, other: Leader, fake_clock):
    for _ in range(30):
        fake_clock.advance(1)
        leader.tick()
        other.tick()

    assert (leader.leads, other.leads) == (True, False)


def test_a_silent_leader_is_replaced_after_the_lease_and_not_before(leader: Leader, other: Leader, fake_clock):
    watch(other, fake_clock, 5)
    assert not other.leads

    watch(other, fake_clock, 1)
    assert (other.leads, other.term) == (True, 2)


def test_a_leader_that_slept_through_its_end_changes_nothing(leader: Leader, other: Leader, fake_clock):
    watch(other, fake_clock, 6)

    with pytest.raises(LeadLost), leader.transaction() as tx:
        submit(tx, [submission()])

    assert not leader.leads
    assert select(leader.ledger, "SELECT id FROM jobs") == []
    with other.transaction() as tx:
        submit(tx, [submission(id="of-the-new-term")])
    assert select(leader.ledger, "SELECT id FROM jobs") == [("of-the-new-term",)]


def test_a_leader_that_was_replaced_notices_at_its_next_tick_and_stands_by(leader: Leader, other: Leader, fake_clock):
    watch(other, fake_clock, 6)

    leader.tick()
    assert not leader.leads

    watch(leader, fake_clock, 7)  # one look to begin with, and six seconds in which the other does not renew
    assert (leader.leads, leader.term) == (True, 3)


def test_a_gap_between_two_looks_replaces_nobody(leader: Leader, other: Leader, fake_clock):
    """A standby that was frozen, or could not read, has not seen the leader silent."""
    fake_clock.advance(3600)
    other.tick()
    assert not other.leads

    leader.tick()
    other.tick()
    fake_clock.advance(5)
    other.tick()
    assert not other.leads


def test_a_standby_that_cannot_read_replaces_nobody(leader: Leader, other: Leader, fake_clock, monkeypatch):
    def unavailable(*_: object) -> None:
        raise LedgerUnavailable("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr("celeriac.keeper.leader.nodes.leader", unavailable)
        for _ in range(60):
            fake_clock.advance(1)
            with pytest.raises(LedgerUnavailable):
                other.tick()

    other.tick()
    leader.tick()
    watch(other, fake_clock, 5)
    assert not other.leads


def test_a_lead_that_is_released_is_taken_at_once(leader: Leader, other: Leader):
    leader.release()

    other.tick()

    assert (leader.leads, other.leads, other.term) == (False, True, 2)


def test_only_one_of_many_takes_over(leader: Leader, ledger: Ledger, fake_clock):
    others = [Leader(ledger, LEASE) for _ in range(5)]
    for _ in range(8):
        for other in others:
            other.tick()
        fake_clock.advance(1)

    assert [other.leads for other in others].count(True) == 1


def test_who_does_not_lead_opens_no_transaction(other: Leader):
    with pytest.raises(LeadLost), other.transaction():
        raise AssertionError("never reached")


def test_an_error_in_a_duty_does_not_cost_the_lead(leader: Leader):
    with pytest.raises(ZeroDivisionError), leader.transaction():
        raise ZeroDivisionError

    leader.tick()
    assert leader.leads
