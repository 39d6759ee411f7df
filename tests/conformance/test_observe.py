"""What is seen of jobs that somebody else runs: written down in any order, by several processes, and never decided."""

import pytest

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.errors import JobObserved
from celeriac.jobs import ErrorCode, Failure, Kind
from celeriac.ledger import Asked, Ledger, Sighting, cancel, read, reopen, sight, upkeep
from celeriac.ledger.counts import all_counts
from celeriac.ledger.moves import observe
from celeriac.states import State
from conformance.moves import SECOND, accept, counted, state_of, submission, take

WHY = Failure(ErrorCode.RAISED, "ValueError", "no")


def seen(ledger: Ledger, *sightings: Sighting) -> None:
    with ledger.transaction() as tx:
        sight(tx, sightings)


def sent(id: str = "one", at: int = 1, **fields) -> Sighting:
    return Sighting(id, at, Kind.SENT, submission=submission(id=id, observed=True, existing_ok=True, **fields))


def started(execution: int, worker: str = "w/1", id: str = "one", **fields) -> Sighting:
    entered = submission(id=id, observed=True, existing_ok=True)
    return Sighting(id, execution, Kind.STARTED, execution=execution, worker=worker, submission=entered, **fields)


def ended(execution: int | None, state: State, kind: Kind, id: str = "one", **fields) -> Sighting:
    return Sighting(id, 99, kind, state, execution=execution, **fields)


def succeeded(execution: int | None) -> Sighting:
    return ended(execution, State.SUCCEEDED, Kind.SUCCEEDED, result="3", preview="3")


def retrying(execution: int) -> Sighting:
    return ended(execution, State.RETRYING, Kind.RETRYING, run_at=500, failure=WHY)


def kinds(ledger: Ledger, id: str = "one") -> list[str]:
    return [event.kind for event in read.history(ledger, SYSTEM, id, 0, 100)]


def job(ledger: Ledger, id: str = "one"):
    return read.job(ledger, SYSTEM, id)


def test_a_whole_life_is_written_down(ledger: Ledger):
    seen(ledger, sent())
    seen(ledger, started(10))
    seen(ledger, succeeded(10))

    assert kinds(ledger) == ["submitted", "sent", "claimed", "started", "succeeded"]
    assert (job(ledger).state, job(ledger).result, job(ledger).attempt) == (State.SUCCEEDED, "3", 1)
    assert (job(ledger).worker, job(ledger).started_at, job(ledger).finished_at) == ("w/1", 10, 99)


def test_a_life_in_one_batch_is_the_same(ledger: Ledger):
    seen(ledger, sent(), started(10), retrying(10), started(20), succeeded(20))

    assert kinds(ledger) == [
        "submitted", "sent", "claimed", "started", "retrying", "claimed", "started", "succeeded",
    ]  # fmt: skip
    assert (job(ledger).state, job(ledger).attempt, job(ledger).failure) == (State.SUCCEEDED, 2, None)


def test_a_job_that_nobody_told_of_is_entered_at_first_sight(ledger: Ledger):
    seen(ledger, started(10))
    seen(ledger, sent())

    assert kinds(ledger) == ["submitted", "claimed", "started"]
    assert job(ledger).observed


def test_nobody_claims_what_is_observed(ledger: Ledger):
    seen(ledger, sent())

    assert take(ledger) == []


def test_a_late_retry_of_an_older_execution_does_not_stop_the_newer(ledger: Ledger):
    seen(ledger, sent(), started(10), started(20, worker="w/2"))
    seen(ledger, retrying(10))

    assert (job(ledger).state, job(ledger).worker, job(ledger).attempt) == (State.RUNNING, "w/2", 2)


def test_an_end_whose_start_was_not_seen_counts_as_an_attempt(ledger: Ledger):
    seen(ledger, sent(), succeeded(10))

    assert kinds(ledger) == ["submitted", "sent", "claimed", "started", "succeeded"]
    assert job(ledger).attempt == 1


def test_what_is_final_stays_and_a_second_run_is_told(ledger: Ledger):
    seen(ledger, sent(), started(10), succeeded(10))
    seen(ledger, started(20, worker="w/2"), ended(20, State.FAILED, Kind.FAILED, failure=WHY))

    assert (job(ledger).state, job(ledger).result, job(ledger).failure) == (State.SUCCEEDED, "3", None)
    assert kinds(ledger)[-2:] == ["succeeded", "log"]


def test_the_same_sightings_again_change_nothing(ledger: Ledger):
    life = sent(), started(10), succeeded(10)
    seen(ledger, *life)
    before = kinds(ledger)
    seen(ledger, sent(), succeeded(10))

    assert kinds(ledger) == before
    seen(ledger, sent("two"), started(10, id="two"))
    seen(ledger, started(10, id="two"))
    assert job(ledger, "two").attempt == 1


def test_progress_counts_only_for_the_execution_that_runs(ledger: Ledger):
    data = {"value": 1.0, "total": 2.0, "note": "half"}
    seen(ledger, sent(), started(10), Sighting("one", 11, Kind.PROGRESS, execution=10, data=data))
    assert job(ledger).progress.value == 1.0
    seen(ledger, started(20), Sighting("one", 21, Kind.PROGRESS, execution=10, data=data))

    assert job(ledger).progress is None
    assert kinds(ledger).count("progress") == 1


def test_a_revoked_job_is_cancelled_without_having_run(ledger: Ledger):
    seen(ledger, sent(), ended(None, State.CANCELLED, Kind.CANCELLED))

    assert (job(ledger).state, job(ledger).attempt) == (State.CANCELLED, 0)


def test_a_replaced_job_goes_on_under_its_new_name(ledger: Ledger):
    seen(ledger, sent(), started(10), ended(10, State.QUEUED, Kind.RETRYING, task="other"))

    assert (job(ledger).state, job(ledger).task) == (State.QUEUED, "other")
    with ledger.reading() as connection:
        assert all_counts(connection) == {("queued", "default", "other"): 1}


def test_the_counts_follow(ledger: Ledger):
    seen(ledger, sent(), sent("two"), started(10), succeeded(10))

    with ledger.reading() as connection:
        assert all_counts(connection) == {("succeeded", "default", "add"): 1, ("queued", "default", "add"): 1}


def test_a_sighting_of_an_owned_job_changes_nothing(ledger: Ledger):
    accept(ledger, id="mine")
    seen(ledger, started(10, id="mine"), ended(10, State.FAILED, Kind.FAILED, id="mine", failure=WHY))

    assert job(ledger, "mine").state is State.QUEUED


@pytest.mark.parametrize(("rerun", "state", "kind"), [(True, "queued", "given-back"), (False, "failed", "failed")])
def test_a_lost_worker_leaves_an_honest_note(ledger: Ledger, rerun: bool, state: str, kind: str):
    seen(ledger, sent(), started(10, worker="w/1", rerun=rerun))
    with ledger.transaction() as tx:
        assert upkeep.rescue(tx) == 1
    [*_, last] = read.history(ledger, SYSTEM, "one", 0, 100)

    assert (job(ledger).state, last.kind) == (state, kind)
    assert "The worker w that ran it was lost" in last.data


def test_nobody_is_woken_for_what_is_observed(ledger: Ledger, fake_clock):
    """A hint in its own broker's queue would reach a plain Celery worker, which cannot read it."""
    seen(ledger, sent("later", run_at=clock.micros() + SECOND), started(10, worker="gone/1", rerun=True))
    own = accept(ledger, run_at=clock.micros() + SECOND)
    fake_clock.advance(2)
    with ledger.transaction() as tx:
        assert (upkeep.rescue(tx), upkeep.fall_due(tx)) == (1, 2)

    assert {state_of(ledger, id) for id in ("one", "later", own)} == {State.QUEUED}
    assert [id for jobs in tx.wakes.values() for id in jobs] == [own]


def test_a_worker_taken_for_lost_may_still_tell_of_the_end(ledger: Ledger):
    seen(ledger, sent(), started(10, worker="w/1"))
    with ledger.transaction() as tx:
        upkeep.rescue(tx)
    seen(ledger, succeeded(10))

    assert job(ledger).state is State.SUCCEEDED


@pytest.mark.parametrize("order", [cancel, reopen])
def test_orders_about_an_observed_job_are_refused_in_words(ledger: Ledger, order):
    seen(ledger, sent())

    with pytest.raises(JobObserved, match="only observed"):
        ledger.do(order, Asked(SYSTEM, "one"))


# What is never seen again

DAY = 86_400 * SECOND


def give_up(ledger: Ledger, days: float = 3) -> int:
    with ledger.transaction() as tx:
        return observe.give_up_unseen(tx, days, clock.micros() - int(days * DAY), 100)


def test_a_job_that_no_worker_was_seen_with_is_given_up_and_says_why(ledger: Ledger, fake_clock):
    seen(ledger, sent())
    own = accept(ledger)
    fake_clock.advance(3 * 86_400 - 1)
    assert give_up(ledger) == 0

    fake_clock.advance(2)
    assert observe.any_unseen(ledger, clock.micros() - 3 * DAY)
    assert give_up(ledger) == 1

    given_up = job(ledger)
    assert (given_up.state, given_up.failure.code, kinds(ledger)[-1]) == (State.FAILED, "not-delivered", "failed")
    assert "No worker was seen with it for 3 days" in given_up.failure.message
    assert given_up.finished_at == clock.micros()
    assert state_of(ledger, own) is State.QUEUED
    assert not observe.any_unseen(ledger, clock.micros())
    counted(ledger)


def test_a_job_that_runs_or_waits_for_its_time_is_not_given_up(ledger: Ledger, fake_clock):
    later = clock.micros() + 4 * DAY
    seen(ledger, sent(), started(10), sent("later", run_at=later), sent("again"), started(10, id="again"))
    seen(ledger, ended(10, State.RETRYING, Kind.RETRYING, id="again", run_at=later, failure=WHY))
    fake_clock.advance(5 * 86_400)
    with ledger.transaction() as tx:
        upkeep.fall_due(tx)

    assert give_up(ledger) == 0
    assert [job(ledger, id).state for id in ("one", "later", "again")] == [State.RUNNING, State.QUEUED, State.QUEUED]
    fake_clock.advance(3 * 86_400)
    assert give_up(ledger) == 2


def test_a_job_whose_worker_was_lost_waits_anew_for_another(ledger: Ledger, fake_clock):
    seen(ledger, sent(), started(10, worker="gone/1"))
    fake_clock.advance(5 * 86_400)
    with ledger.transaction() as tx:
        assert upkeep.rescue(tx) == 1

    assert (job(ledger).state, give_up(ledger)) == (State.QUEUED, 0)
    fake_clock.advance(3 * 86_400 + 1)
    assert give_up(ledger) == 1


def test_a_job_that_was_only_late_is_opened_again(ledger: Ledger, fake_clock):
    seen(ledger, sent())
    fake_clock.advance(4 * 86_400)
    give_up(ledger)
    seen(ledger, started(10))
    assert (job(ledger).state, job(ledger).failure, job(ledger).finished_at) == (State.RUNNING, None, None)

    seen(ledger, succeeded(10))
    assert kinds(ledger) == ["submitted", "sent", "failed", "reopened", "claimed", "started", "succeeded"]
    assert job(ledger).state is State.SUCCEEDED
    counted(ledger)
