"""One row that cannot be moved holds up nobody: batches get smaller until it stands alone, and then pass it over."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from conformance.moves import SECOND, begin, state_of, submission, submit_all, take

from celeriac import clock
from celeriac.errors import LedgerLocked, LedgerUnavailable
from celeriac.keeper import detour, due, rescuer
from celeriac.keeper.detour import Detour
from celeriac.keeper.due import Due
from celeriac.keeper.leader import Leader
from celeriac.keeper.rescuer import Rescuer
from celeriac.ledger import Ledger
from celeriac.states import State


@pytest.fixture
def ids(ledger: Ledger, fake_clock) -> list[str]:
    """Twenty jobs in the hands of a worker nobody knows, or expired; the fourth cannot be given up."""
    ids = [f"job-{number:02}" for number in range(20)]
    submit_all(ledger, *(submission(id=id, rerun=False) for id in ids))
    return ids


def spoil(ledger: Ledger, id: str, body: str = "{") -> None:
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(
            f"UPDATE payloads SET body = '{body}' WHERE job = (SELECT key FROM jobs WHERE id = '{id}')"
        )


def work(tick: Callable[[], float], times: int = 20) -> None:
    """Tick as the loop does: what fails is tried again later."""
    for _ in range(times):
        try:
            tick()
        except LedgerUnavailable:
            raise
        except Exception:
            continue


def left(ledger: Ledger, ids: list[str], *states: State) -> list[str]:
    return [id for id in ids if state_of(ledger, id) in states]


def test_expiry_goes_round_a_job_that_cannot_be_cancelled(ledger: Ledger, leader: Leader, ids, fake_clock):
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(f"UPDATE jobs SET expires_at = {clock.micros() + SECOND}")
    spoil(ledger, ids[3])
    fake_clock.advance(2)
    duty = Due(leader)

    work(duty.tick)

    assert left(ledger, ids, State.QUEUED) == [ids[3]]
    assert duty.tick() == due.LOOK_SECONDS

    spoil(ledger, ids[3], "[[],{},{}]")
    work(duty.tick)
    assert left(ledger, ids, State.QUEUED) == [ids[3]]
    fake_clock.advance(detour.AGAIN_SECONDS)
    work(duty.tick)
    assert left(ledger, ids, State.QUEUED) == []


def test_rescue_goes_round_a_job_that_cannot_be_failed(ledger: Ledger, leader: Leader, ids, fake_clock):
    for job in take(ledger, 20, worker="nobody"):
        begin(ledger, job)
    spoil(ledger, ids[3])
    duty = Rescuer(leader, 10)

    work(duty.tick)

    assert left(ledger, ids, State.RUNNING) == [ids[3]]
    assert duty.tick() == rescuer.LOOK_SECONDS


def test_batches_shrink_by_failure_and_grow_again(fake_clock):
    detour = Detour(500)
    sizes = []
    for fails in (True, True, True, True, True, False, False, False):
        try:
            with detour.batch() as (most, skip):
                sizes.append((most, skip))
                assert not fails
        except AssertionError:
            pass

    assert sizes == [(500, 0), (62, 0), (7, 0), (1, 0), (1, 1), (1, 2), (8, 2), (64, 2)]


def test_a_row_that_a_stranger_has_locked_is_passed_over_and_is_no_outage(ledger: Ledger, leader: Leader, fake_clock):
    detour, sizes = Detour(500), []
    for _ in range(6):
        with suppress(LedgerLocked), detour.batch() as batch, leader.transaction():
            sizes.append(batch)
            raise LedgerLocked("Another open transaction holds a row that this needs.")

    assert sizes[-1] == (1, 2)
    assert leader.refusals == 0  # so the rescuer goes on to count


def test_an_outage_is_no_fault_of_a_row(fake_clock):
    detour = Detour(500)
    for _ in range(5):
        with pytest.raises(LedgerUnavailable), detour.batch():
            raise LedgerUnavailable("The database is away.")

    with detour.batch() as batch:
        assert batch == (500, 0)
