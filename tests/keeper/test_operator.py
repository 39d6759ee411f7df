"""The duty of working off operations, one tick at a time, and what it survives."""

import signal
from pathlib import Path

import pytest
from conformance.moves import accept, counted, state_of, submission, submit_all
from conformance.test_operations import OPERATOR, ask, numbers
from conformance.test_requests import BOOM
from instance import instance, until

from celeriac.access import SYSTEM
from celeriac.jobs import Filter
from celeriac.keeper import operator
from celeriac.keeper.leader import Leader, LeadLost
from celeriac.keeper.loop import Loop
from celeriac.keeper.operator import Operator
from celeriac.ledger import Ledger, close_ledger, migrations, operations
from celeriac.ledger.operations import Kind, Wanted
from celeriac.settings import load
from celeriac.states import State


def seen(ledger: Ledger, id: str) -> tuple[int, int, int, bool]:
    found = operations.operation(ledger, SYSTEM, id)
    return *numbers(found), found.finished_at is not None


def test_open_operations_take_turns_in_small_steps(ledger: Ledger, leader: Leader, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operator, "BATCH", 2)
    submit_all(ledger, *(submission(queue="large") for _ in range(5)), *(submission(queue="small") for _ in range(2)))
    large, small = ask(ledger, queues=("large",)), ask(ledger, queues=("small",))
    duty = Operator(leader)

    assert duty.tick() == 0
    assert (seen(ledger, large.id), seen(ledger, small.id)) == ((2, 2, 0, False), (2, 2, 0, True))
    assert (duty.tick(), duty.tick(), duty.tick()) == (0, 0, operator.LOOK_SECONDS)
    assert seen(ledger, large.id) == (5, 5, 0, True)
    counted(ledger)


def test_a_keeper_goes_on_where_another_was_killed(ledger: Ledger, leader: Leader, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operator, "BATCH", 2)
    submit_all(ledger, *(submission() for _ in range(5)))
    operation = ask(ledger)
    Operator(leader).tick()

    for _ in range(2):
        Operator(leader).tick()

    assert seen(ledger, operation.id) == (5, 5, 0, True)


def test_a_keeper_that_no_longer_leads_moves_nothing(ledger: Ledger, leader: Leader, fake_clock):
    id = accept(ledger)
    operation = ask(ledger)
    duty = Operator(leader)
    leader.holder = "somebody else"

    with pytest.raises(LeadLost):
        duty.tick()

    assert state_of(ledger, id) is State.QUEUED
    assert seen(ledger, operation.id) == (0, 0, 0, False)


def test_a_job_that_breaks_its_step_is_refused_and_left_behind(
    ledger: Ledger, leader: Leader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ids = [receipt.id for receipt in submit_all(ledger, *(submission() for _ in range(9)))]  # type: ignore[union-attr]
    bad, cancel = ids[4], operations._MOVES[Kind.CANCEL]

    def breaking(tx, asked):
        if any(one.id == bad for one in asked):
            raise ZeroDivisionError
        return cancel(tx, asked)

    monkeypatch.setitem(operations._MOVES, Kind.CANCEL, breaking)
    operation = ask(ledger)
    duty = Operator(leader)
    for _ in range(60):
        if duty.tick():
            break

    assert seen(ledger, operation.id) == (9, 8, 1, True)
    assert state_of(ledger, bad) is State.QUEUED
    assert [record for record in caplog.records if bad in record.getMessage()]
    counted(ledger)


def test_keepers_that_are_killed_leave_every_job_moved_once_and_counted_once(tmp_path: Path):
    with instance(tmp_path / "home") as house:
        ids = house.submit("add", 350, x=1, y=2)
        operation = house.ledger.do(operations.begin, Wanted(Kind.CANCEL, SYSTEM, Filter(tasks=("add",))))
        for place in ("operation-moved:2", "operation-moved:1"):
            assert house.keeper(place, CELERIAC_FAILPOINT=place).wait(30) == -signal.SIGKILL, house.log(place)
        assert seen(house.ledger, operation.id) == (100, 100, 0, False)
        house.keeper("last")
        until(lambda: seen(house.ledger, operation.id)[3], f"the operation to end\n{house.log('last')}")

        assert seen(house.ledger, operation.id) == (350, 350, 0, True)
        assert {tuple(house.kinds(id)) for id in ids} == {("submitted", "cancelled")}


def test_a_new_operation_wakes_the_keeper_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operator, "LOOK_SECONDS", 3600.0)
    loop = Loop(load(home=tmp_path))
    migrations.upgrade(loop.leader.ledger)
    loop.step()
    operation = loop.leader.ledger.do(operations.begin, Wanted(Kind.CANCEL, SYSTEM, Filter(queues=("q",))))
    assert loop.step() > 0

    loop._wait(10)
    loop.step()

    assert seen(loop.leader.ledger, operation.id) == (0, 0, 0, True)
    loop._listener.close()
    close_ledger(loop.leader.ledger.url)


def test_retries_are_worked_off_as_well(ledger: Ledger, leader: Leader):
    id = accept(ledger, failure=BOOM)
    operation = ask(ledger, Kind.RETRY, OPERATOR, states=("failed",))

    Operator(leader).tick()

    assert (state_of(ledger, id), seen(ledger, operation.id)) == (State.QUEUED, (1, 1, 0, True))
