"""What the keeper does to jobs: due, expired, orphaned, counted; in order, in batches, and safe to repeat."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.jobs import Kind
from celeriac.ledger import Asked, Ledger, cancel, counts, nodes, submit, upkeep
from celeriac.states import State
from conformance.moves import (
    BOOM,
    SECOND,
    accept,
    begin,
    counted,
    end,
    failure,
    kinds,
    look,
    outcome,
    retry,
    running,
    select,
    state_of,
    submission,
    submit_all,
    success,
    take,
    take_one,
)
from conformance.test_nodes import NODE
from conformance.test_pruning import prune_jobs

DAY = 86_400 * SECOND


def fall_due(ledger: Ledger, most: int = 500) -> int:
    with ledger.transaction() as tx:
        return upkeep.fall_due(tx, most)


def expire(ledger: Ledger, most: int = 500) -> int:
    with ledger.transaction() as tx:
        return upkeep.expire(tx, most)


def rescue(ledger: Ledger, most: int = 500) -> int:
    with ledger.transaction() as tx:
        return upkeep.rescue(tx, most)


# Due


def test_what_falls_due_is_queued_and_its_queue_woken(ledger: Ledger, fake_clock):
    soon = accept(ledger, run_at=clock.micros() + SECOND, queue="big")
    later = accept(ledger, run_at=clock.micros() + 9 * SECOND)
    told = []
    ledger.announce = told.append

    assert fall_due(ledger) == 0
    fake_clock.advance(1)
    assert fall_due(ledger) == 1

    assert (state_of(ledger, soon), state_of(ledger, later)) == (State.QUEUED, State.SCHEDULED)
    assert [set(tx.wakes) for tx in told] == [set(), {"big"}]
    assert fall_due(ledger) == 0
    assert counted(ledger) == {("queued", "big", "add"): 1, ("scheduled", "default", "add"): 1}


def test_the_longest_due_come_first_when_there_are_many(ledger: Ledger, fake_clock):
    now = clock.micros()
    late = [accept(ledger, run_at=now + seconds * SECOND) for seconds in (5, 1, 3, 2, 4)]
    fake_clock.advance(10)

    assert fall_due(ledger, most=2) == 2

    assert [state_of(ledger, id) for id in late] == [
        State.SCHEDULED,
        State.QUEUED,
        State.SCHEDULED,
        State.QUEUED,
        State.SCHEDULED,
    ]
    assert [fall_due(ledger, most=2) for _ in range(3)] == [2, 1, 0]


def test_a_cancelled_job_does_not_fall_due(ledger: Ledger, fake_clock):
    id = accept(ledger, run_at=clock.micros() + SECOND)
    ledger.do(cancel, Asked(SYSTEM, id))
    fake_clock.advance(2)

    assert fall_due(ledger) == 0
    assert state_of(ledger, id) is State.CANCELLED


def test_the_next_moment_is_the_earliest_of_due_and_expiry(ledger: Ledger):
    now = clock.micros()
    assert upkeep.next_due(ledger) is None

    accept(ledger, run_at=now + 90 * SECOND)
    assert upkeep.next_due(ledger) == now + 90 * SECOND
    accept(ledger, expires_at=now + 60 * SECOND)
    assert upkeep.next_due(ledger) == now + 60 * SECOND

    end(ledger, success(take_one(ledger)))  # what has ended waits for nothing
    assert upkeep.next_due(ledger) == now + 90 * SECOND


# Expiry


def test_a_waiting_job_expires(ledger: Ledger, fake_clock):
    expires_at = clock.micros() + 5 * SECOND
    queued = accept(ledger, expires_at=expires_at)
    scheduled = accept(ledger, expires_at=expires_at, run_at=expires_at + SECOND)
    retrying = running(ledger, expires_at=expires_at, queue="other")
    end(ledger, retry(retrying, 60))
    assert expire(ledger) == 0
    fake_clock.advance(5)

    assert expire(ledger) == 3

    for id in (queued, scheduled, retrying.id):
        assert (look(ledger, id).state, look(ledger, id).failure.code) == (State.CANCELLED, "expired")
        assert kinds(ledger, id)[-1] == "cancelled"
    assert expire(ledger) == 0
    counted(ledger)


def test_a_running_job_does_not_expire(ledger: Ledger, fake_clock):
    job = running(ledger, expires_at=clock.micros() + SECOND)
    fake_clock.advance(5)

    assert expire(ledger) == 0
    assert end(ledger, success(job)) == [True]


def test_expiry_goes_in_batches(ledger: Ledger):
    submit_all(ledger, *(submission(expires_at=1) for _ in range(5)))

    assert [expire(ledger, most=2) for _ in range(4)] == [2, 2, 1, 0]


# Rescue


def orphan(ledger: Ledger, started: bool, **changes: object) -> str:
    """A job in the hands of a worker that is given up."""
    id = accept(ledger, **changes)
    worker = replace(NODE, id=f"{id}/host/1")
    ledger.do(nodes.register, worker)
    job = take_one(ledger, worker=worker.id)
    if started:
        begin(ledger, job)
    with ledger.transaction() as tx:
        nodes.lose(tx, [worker.id])
    return id


def test_a_living_workers_job_is_left_alone(ledger: Ledger):
    ledger.do(nodes.register, NODE)
    job = running(ledger)

    assert not upkeep.any_orphan(ledger)
    assert rescue(ledger) == 0
    assert end(ledger, success(job)) == [True]


@pytest.mark.parametrize("worker_is", ["lost", "stopped", "unknown"])
def test_a_started_job_of_a_worker_that_is_gone_runs_again(ledger: Ledger, worker_is: str):
    if worker_is != "unknown":
        ledger.do(nodes.register, NODE)
    job = running(ledger)
    with ledger.transaction() as tx:
        if worker_is == "lost":
            nodes.lose(tx, [NODE.id])
        else:
            nodes.stop(tx, [NODE.id])
    assert upkeep.any_orphan(ledger)

    assert rescue(ledger) == 1

    assert (state_of(ledger, job.id), kinds(ledger, job.id)[-1]) == (State.QUEUED, "rescued")
    assert not upkeep.any_orphan(ledger)
    assert rescue(ledger) == 0
    assert take_one(ledger, worker="another").deaths == 1
    counted(ledger)


def test_a_job_that_had_not_started_is_given_back_without_a_death(ledger: Ledger):
    id = orphan(ledger, started=False, rerun=False, max_attempts=1)

    rescue(ledger)

    assert kinds(ledger, id) == ["submitted", "claimed", "given-back"]
    assert take_one(ledger).deaths == 0


def test_a_started_job_that_must_not_run_twice_fails(ledger: Ledger):
    id = orphan(ledger, started=True, rerun=False)

    rescue(ledger)

    assert (state_of(ledger, id), look(ledger, id).failure.code) == (State.FAILED, "worker-lost")


def test_a_job_asked_to_end_ends_with_its_worker(ledger: Ledger):
    id = accept(ledger)
    take(ledger)
    ledger.do(cancel, Asked(SYSTEM, id))

    rescue(ledger)

    assert (state_of(ledger, id), kinds(ledger, id)[-1]) == (State.CANCELLED, "cancelled")


def test_a_worker_that_comes_back_late_ends_nothing(ledger: Ledger):
    job = running(ledger)
    rescue(ledger)

    assert end(ledger, success(job, sends=(submission(),))) == [False]
    assert state_of(ledger, job.id) is State.QUEUED
    counted(ledger)


def test_rescue_goes_in_batches(ledger: Ledger):
    submit_all(ledger, *(submission() for _ in range(5)))
    take(ledger, 5)

    assert [rescue(ledger, most=2) for _ in range(4)] == [2, 2, 1, 0]
    assert counted(ledger) == {("queued", "default", "add"): 5}


# Counts


def test_folding_keeps_the_counts_exact(ledger: Ledger):
    for _ in range(3):
        submit_all(ledger, *(submission(queue=f"q{n % 2}") for n in range(4)))
        end(ledger, *(success(job) for job in take(ledger, 3, queues=("q0", "q1"))))
        before = counted(ledger)
        assert counts.any_delta(ledger)

        with ledger.transaction() as tx:
            assert counts.fold_counts(tx) > 0

        assert counted(ledger) == before
        assert not counts.any_delta(ledger)
        assert select(ledger, "SELECT COUNT(*) FROM count_deltas") == [(0,)]


def test_deltas_of_the_transaction_that_folds_are_not_lost(ledger: Ledger):
    with ledger.transaction() as tx:
        submit(tx, [submission()])
        counts.fold_counts(tx)
        submit(tx, [submission()])

    assert counted(ledger) == {("queued", "default", "add"): 2}


def test_counts_equal_a_recount_after_every_move(ledger: Ledger, fake_clock):
    """One long story through every kind of move, counted after each."""

    def fold() -> None:
        with ledger.transaction() as tx:
            counts.fold_counts(tx)

    held = []
    story = [
        lambda: submit_all(ledger, *(submission(queue=f"q{n % 2}", priority=n % 3) for n in range(12))),
        lambda: accept(ledger, run_at=clock.micros() + SECOND),
        lambda: accept(ledger, expires_at=clock.micros() + SECOND),
        lambda: accept(ledger, failure=BOOM),
        fold,
        lambda: held.extend(take(ledger, 8, queues=("q0", "q1"))),
        lambda: [begin(ledger, job) for job in held[:4]],
        lambda: end(ledger, success(held[0], sends=(submission(queue="links"),))),
        lambda: end(ledger, failure(held[1]), retry(held[2], 1, new_queue="slow")),
        lambda: end(ledger, outcome(held[3], State.QUEUED, Kind.RESCUED, death=True, failure=BOOM)),
        lambda: end(ledger, *(success(job) for job in held[:4])),
        lambda: ledger.do(cancel, Asked(SYSTEM, held[3].id)),
        lambda: ledger.do(cancel, Asked(SYSTEM, held[4].id)),
        lambda: fake_clock.advance(2),
        lambda: fall_due(ledger),
        lambda: expire(ledger),
        fold,
        lambda: rescue(ledger),
        lambda: prune_jobs(ledger, clock.micros() - SECOND),
        fold,
    ]
    for move in story:
        move()
        counted(ledger)
    assert {state for state, _, _ in counted(ledger)} == {"queued", "cancelled"}
