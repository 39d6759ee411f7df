"""What the keeper does to jobs: due, expired, orphaned, old; in order, in batches, and safe to repeat."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.errors import JobNotFound
from celeriac.jobs import Chord, Kind
from celeriac.ledger import Asked, Ledger, cancel, nodes, open_chord, read, submit, upkeep
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


def prune(ledger: Ledger, before: int, most: int = 500) -> int:
    with ledger.transaction() as tx:
        return upkeep.prune_jobs(tx, before, most)


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
    assert [tx.wakes for tx in told] == [set(), {"big"}]
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


# Pruning


def tables(ledger: Ledger) -> dict[str, int]:
    names = ("jobs", "payloads", "events", "tags", "chord_parts")
    return {name: select(ledger, f"SELECT COUNT(*) FROM {name}")[0][0] for name in names}


def test_old_jobs_go_with_all_that_belongs_to_them(ledger: Ledger, fake_clock):
    old = running(ledger, tags=("red",))
    end(ledger, success(old))
    ledger.do(submit, submission(failure=BOOM, queue="other"))
    fake_clock.advance(60)
    end(ledger, failure(fresh := running(ledger, tags=("red",))))
    waiting = accept(ledger)

    assert prune(ledger, clock.micros() - 30 * SECOND) == 2

    with pytest.raises(JobNotFound):
        look(ledger, old.id)
    assert (state_of(ledger, fresh.id), state_of(ledger, waiting)) == (State.FAILED, State.QUEUED)
    assert tables(ledger) == {"jobs": 2, "payloads": 2, "events": 5, "tags": 1, "chord_parts": 0}
    assert counted(ledger) == {("failed", "default", "add"): 1, ("queued", "default", "add"): 1}


def test_a_job_that_has_not_ended_is_never_old(ledger: Ledger, fake_clock):
    accept(ledger)
    accept(ledger, run_at=clock.micros() + 400 * DAY)
    take(ledger)
    fake_clock.advance(86_400 * 365)

    assert prune(ledger, clock.micros()) == 0


def test_pruning_goes_in_batches_oldest_first(ledger: Ledger, fake_clock):
    ids = []
    for _ in range(5):
        ids.append(accept(ledger, failure=BOOM))
        fake_clock.advance(1)

    assert prune(ledger, clock.micros(), most=2) == 2

    assert read.ended(ledger, ids) == ids
    assert [id for (id,) in select(ledger, "SELECT id FROM jobs ORDER BY key")] == ids[2:]
    assert [prune(ledger, clock.micros(), most=2) for _ in range(3)] == [2, 1, 0]
    assert counted(ledger) == {}


def test_members_of_a_chord_that_has_not_fired_are_kept(ledger: Ledger, fake_clock):
    ledger.do(open_chord, Chord("chord", size=2, body=(submission(id="body", queue="bodies"),)))
    submit_all(ledger, *(submission(chord="chord", group_index=place) for place in range(2)))
    first, second = take(ledger, 2)
    end(ledger, success(first))
    fake_clock.advance(60)
    assert prune(ledger, clock.micros()) == 0

    end(ledger, success(second))
    assert tables(ledger)["chord_parts"] == 2
    fake_clock.advance(60)

    assert prune(ledger, clock.micros()) == 2
    assert tables(ledger)["chord_parts"] == 0
    assert state_of(ledger, "body") is State.QUEUED


def test_old_events_go_before_their_jobs(ledger: Ledger, fake_clock):
    ended = []
    for _ in range(5):
        job = running(ledger)
        end(ledger, success(job))
        ended.append(job)
        fake_clock.advance(10)
    waiting = accept(ledger)

    marks, mark = [], (0, 0)
    while mark is not None:
        with ledger.transaction() as tx:
            mark = upkeep.prune_events(tx, mark, clock.micros() - 15 * SECOND, most=2)
        marks.append(mark and mark[1])

    assert marks == [ended[1].key, ended[3].key, None]
    assert [read.history(ledger, SYSTEM, job.id, 0, 10) for job in ended[:4]] == [[]] * 4
    assert len(kinds(ledger, ended[4].id)) == 4
    assert kinds(ledger, waiting) == ["submitted"]
    assert state_of(ledger, ended[0].id) is State.SUCCEEDED


def test_jobs_that_ended_in_the_same_microsecond_are_all_reached(ledger: Ledger, fake_clock):
    submit_all(ledger, *(submission(failure=BOOM) for _ in range(5)))
    fake_clock.advance(1)

    mark: tuple[int, int] | None = (0, 0)
    while mark is not None:
        with ledger.transaction() as tx:
            mark = upkeep.prune_events(tx, mark, clock.micros(), most=2)

    assert tables(ledger)["events"] == 0


def test_the_rest_goes_when_nothing_refers_to_it(ledger: Ledger, fake_clock):
    ledger.do(open_chord, Chord("fired", size=0, body=(submission(),)))
    ledger.do(open_chord, Chord("open", size=1, body=(submission(),)))
    accept(ledger, idempotency_key="k", fingerprint="f")
    ledger.do(nodes.register, NODE)
    ledger.do(nodes.register, replace(NODE, id="gone"))
    ledger.do(nodes.stop, "gone")
    fake_clock.advance(60)

    with ledger.transaction() as tx:
        upkeep.prune_rest(tx, clock.micros(), clock.micros())

    assert select(ledger, "SELECT id FROM chords") == [("open",)]
    assert select(ledger, "SELECT id FROM workers") == [(NODE.id,)]
    assert select(ledger, "SELECT * FROM idempotency") == []


# Counts


def test_folding_keeps_the_counts_exact(ledger: Ledger):
    for _ in range(3):
        submit_all(ledger, *(submission(queue=f"q{n % 2}") for n in range(4)))
        end(ledger, *(success(job) for job in take(ledger, 3, queues=("q0", "q1"))))
        before = counted(ledger)
        assert upkeep.any_delta(ledger)

        with ledger.transaction() as tx:
            assert upkeep.fold_counts(tx) > 0

        assert counted(ledger) == before
        assert not upkeep.any_delta(ledger)
        assert select(ledger, "SELECT COUNT(*) FROM count_deltas") == [(0,)]


def test_deltas_of_the_transaction_that_folds_are_not_lost(ledger: Ledger):
    with ledger.transaction() as tx:
        submit(tx, [submission()])
        upkeep.fold_counts(tx)
        submit(tx, [submission()])

    assert counted(ledger) == {("queued", "default", "add"): 2}


def test_counts_equal_a_recount_after_every_move(ledger: Ledger, fake_clock):
    """One long story through every kind of move, counted after each."""

    def fold() -> None:
        with ledger.transaction() as tx:
            upkeep.fold_counts(tx)

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
        lambda: prune(ledger, clock.micros() - SECOND),
        fold,
    ]
    for move in story:
        move()
        counted(ledger)
    assert {state for state, _, _ in counted(ledger)} == {"queued", "cancelled"}
