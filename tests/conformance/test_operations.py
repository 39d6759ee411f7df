"""Operations on a filter: whose jobs they move, which, how often, and that their counts are exact."""

from typing import Any

import pytest

from celeriac import clock
from celeriac.access import SYSTEM, Principal
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.errors import OperationNotFound
from celeriac.jobs import Filter
from celeriac.ledger import Ledger, operations
from celeriac.ledger.operations import Kind, Operation, Wanted
from celeriac.states import State
from conformance.moves import (
    BOOM,
    SECOND,
    accept,
    counted,
    kinds,
    roll_back,
    running,
    state_of,
    submission,
    submit_all,
    take_one,
)

ANN = Principal("ann", PERMISSIONS[Role.SUBMITTER])
OPERATOR = Principal("olga", PERMISSIONS[Role.OPERATOR])


def ask(ledger: Ledger, kind: Kind = Kind.CANCEL, principal: Principal = OPERATOR, **filter: Any) -> Operation:
    return ledger.do(operations.begin, Wanted(kind, principal, Filter(**filter)))


def work(ledger: Ledger, operation: Operation, most: int = 2) -> Operation:
    """Take the steps of an operation until it is done."""
    while operation.finished_at is None:
        operation = one_step(ledger, operation, most)
    return operation


def one_step(ledger: Ledger, operation: Operation, most: int = 2, skip: bool = False) -> Operation:
    jobs, after = operations.look(ledger, operation, most)
    with ledger.transaction() as tx:
        operations.step(tx, operation, jobs, after, skip)
    return operations.operation(ledger, SYSTEM, operation.id)


def numbers(operation: Operation) -> tuple[int, int, int]:
    return operation.matched, operation.moved, operation.refused


def test_everything_that_matches_is_cancelled_and_nothing_else(ledger: Ledger):
    mine = [accept(ledger, queue="small") for _ in range(5)]
    late = accept(ledger, queue="small", run_at=clock.micros() + 60 * SECOND)
    other = accept(ledger, queue="big")

    done = work(ledger, ask(ledger, queues=("small",)))

    assert numbers(done) == (6, 6, 0)
    assert {state_of(ledger, id) for id in [*mine, late]} == {State.CANCELLED}
    assert state_of(ledger, other) is State.QUEUED
    counted(ledger)


def test_a_running_job_is_told_to_stop(ledger: Ledger):
    job = running(ledger)

    done = work(ledger, ask(ledger, tasks=("add",)))

    assert numbers(done) == (1, 1, 0)
    assert kinds(ledger, job.id)[-1] == "cancel-requested"


def test_everything_that_failed_is_sent_through_again(ledger: Ledger):
    failed = [accept(ledger, failure=BOOM, tags=("x",)) for _ in range(5)]
    waiting = accept(ledger, tags=("x",))

    done = work(ledger, ask(ledger, Kind.RETRY, tags=("x",)))

    assert numbers(done) == (5, 5, 0)
    assert {state_of(ledger, id) for id in failed} == {State.QUEUED}
    assert kinds(ledger, waiting) == ["submitted"]
    counted(ledger)


def test_what_matches_and_cannot_be_moved_is_counted_as_refused(ledger: Ledger):
    accept(ledger, failure=BOOM)
    accept(ledger)

    done = work(ledger, ask(ledger, states=("failed", "queued")))

    assert numbers(done) == (2, 1, 1)


def test_jobs_that_come_later_are_left_alone(ledger: Ledger):
    accept(ledger)
    operation = ask(ledger)
    late = accept(ledger)

    assert numbers(work(ledger, operation)) == (1, 1, 0)
    assert state_of(ledger, late) is State.QUEUED


def test_a_job_that_was_claimed_since_the_look_is_cancelled_all_the_same(ledger: Ledger):
    accept(ledger)
    operation = ask(ledger)
    jobs, after = operations.look(ledger, operation, 10)
    job = take_one(ledger)

    with ledger.transaction() as tx:
        operations.step(tx, operation, jobs, after)

    assert kinds(ledger, job.id)[-1] == "cancel-requested"


def test_a_job_that_has_left_the_states_asked_for_is_refused(ledger: Ledger):
    accept(ledger)
    operation = ask(ledger, states=("queued",))
    jobs, after = operations.look(ledger, operation, 10)
    job = take_one(ledger)

    with ledger.transaction() as tx:
        operations.step(tx, operation, jobs, after)

    assert numbers(operations.operation(ledger, SYSTEM, operation.id)) == (1, 0, 1)
    assert kinds(ledger, job.id) == ["submitted", "claimed"]


@pytest.mark.parametrize("kind", Kind)
def test_others_jobs_are_neither_moved_nor_counted_for_who_may_not(ledger: Ledger, kind: Kind):
    change = {"failure": BOOM} if kind is Kind.RETRY else {}
    own, other = accept(ledger, **change), accept(ledger, owner="bob", **change)
    before = state_of(ledger, other)

    assert numbers(work(ledger, ask(ledger, kind, ANN))) == (1, 1, 0)

    assert state_of(ledger, own) is not before
    assert state_of(ledger, other) is before


def test_who_sees_all_but_controls_its_own_moves_its_own(ledger: Ledger):
    principal = Principal("ann", PERMISSIONS[Role.SUBMITTER] | PERMISSIONS[Role.VIEWER])
    accept(ledger)
    accept(ledger, owner="bob")

    assert numbers(work(ledger, ask(ledger, principal=principal))) == (1, 1, 0)


def test_a_token_for_some_tasks_retries_only_those(ledger: Ledger):
    principal = Principal("ann", PERMISSIONS[Role.SUBMITTER], ("ad*",))
    add, lcs = accept(ledger, failure=BOOM), accept(ledger, task="lcs", failure=BOOM)

    assert numbers(work(ledger, ask(ledger, Kind.RETRY, principal))) == (2, 1, 1)

    assert (state_of(ledger, add), state_of(ledger, lcs)) == (State.QUEUED, State.FAILED)


def test_a_step_that_does_not_commit_is_taken_again_with_the_same_counts(ledger: Ledger):
    submit_all(ledger, *(submission() for _ in range(5)))
    operation = ask(ledger)
    while operation.finished_at is None:
        jobs, after = operations.look(ledger, operation, 2)
        roll_back(ledger, lambda tx, _: operations.step(tx, operation, jobs, after))  # noqa: B023
        operation = one_step(ledger, operation)

    assert numbers(operation) == (5, 5, 0)
    counted(ledger)


def test_a_step_that_was_taken_already_changes_nothing(ledger: Ledger):
    submit_all(ledger, *(submission() for _ in range(5)))
    operation = ask(ledger)
    jobs, after = operations.look(ledger, operation, 2)

    for _ in range(2):
        with ledger.transaction() as tx:
            operations.step(tx, operation, jobs, after)

    assert numbers(operations.operation(ledger, SYSTEM, operation.id)) == (2, 2, 0)


def test_a_step_that_is_skipped_refuses_its_jobs(ledger: Ledger):
    accept(ledger)

    assert numbers(one_step(ledger, ask(ledger), skip=True)) == (1, 0, 1)


def test_an_operation_on_nothing_is_done_with_nothing(ledger: Ledger):
    assert numbers(work(ledger, ask(ledger, queues=("nowhere",)))) == (0, 0, 0)


def test_an_operation_wakes_the_keeper_and_waits_for_it_oldest_first(ledger: Ledger, fake_clock):
    told = []
    ledger.announce = told.append
    first = ask(ledger)
    fake_clock.advance(1)
    second = ask(ledger, Kind.RETRY, queues=("q",), since=7)

    assert told[0].due_at is not None
    assert operations.unfinished(ledger) == [first, second]
    assert (second.filter, second.kind, second.principal) == (Filter(queues=("q",), since=7), Kind.RETRY, OPERATOR)
    work(ledger, first)
    assert [operation.id for operation in operations.unfinished(ledger)] == [second.id]


def test_operations_are_listed_to_their_owner_and_to_who_sees_all(ledger: Ledger):
    anns = [ask(ledger, principal=ANN).id for _ in range(3)]
    olgas = ask(ledger).id

    page, after = operations.page(ledger, ANN, None, 2)
    rest, end = operations.page(ledger, ANN, after, 2)

    assert {operation.id for operation in page + rest} == set(anns)
    assert (len(page), len(rest), end) == (2, 1, None)
    assert {operation.id for operation in operations.page(ledger, OPERATOR, None, 10)[0]} == {*anns, olgas}
    with pytest.raises(OperationNotFound):
        operations.operation(ledger, ANN, olgas)
    with pytest.raises(OperationNotFound):
        operations.operation(ledger, OPERATOR, "nothing")
