"""Observed jobs that never came to a worker are given up, in batches, and nobody writes when there are none."""

from conformance.test_observe import job, seen, sent

from celeriac.keeper import sentry
from celeriac.keeper.leader import Leader
from celeriac.keeper.loop import Loop
from celeriac.keeper.sentry import Sentry
from celeriac.ledger import Ledger
from celeriac.settings import Settings
from celeriac.states import State


def test_what_was_never_delivered_is_given_up_batch_by_batch(ledger: Ledger, leader: Leader, fake_clock, monkeypatch):
    monkeypatch.setattr(sentry, "BATCH", 2)
    seen(ledger, *(sent(f"job{n}") for n in range(3)))
    duty = Sentry(leader, 0.5)
    assert duty.tick() == sentry.LOOK_SECONDS

    fake_clock.advance(43_201)
    pauses = [duty.tick() for _ in range(3)]

    assert pauses == [sentry.PAUSE_SECONDS, sentry.PAUSE_SECONDS, sentry.LOOK_SECONDS]
    assert {job(ledger, f"job{n}").state for n in range(3)} == {State.FAILED}
    assert "for 0.5 days" in job(ledger, "job0").failure.message


def test_it_takes_no_turn_to_write_when_nothing_is_overdue(ledger: Ledger, leader: Leader):
    seen(ledger, sent())
    told = []
    ledger.announce = told.append

    Sentry(leader, 3).tick()

    assert told == []


def test_a_keeper_gives_up_what_the_settings_say(ledger_url: str, ledger: Ledger, monkeypatch):
    loop = Loop(Settings(database_url=ledger_url, observed_days=2.5))

    assert [duty._days for duty in loop._duties if isinstance(duty, Sentry)] == [2.5]
    loop._listener.close()
    loop.leader.ledger.close()
