"""Start, note and finish: only the attempt that holds a job may write, and what it sends commits with it."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.jobs import Claimed, Failure, Kind, Message, Note, Progress, Start
from celeriac.ledger import Asked, Ledger, cancel, finish, note, read, start, upkeep
from celeriac.states import State
from conformance.moves import (
    BOOM,
    SECOND,
    accept,
    begin,
    counted,
    end,
    failure,
    given_back,
    kinds,
    look,
    outcome,
    retry,
    roll_back,
    running,
    select,
    state_of,
    submission,
    success,
    take,
    take_one,
)

LOST = Failure("worker-lost", "WorkerLost", "The worker w1 that ran it was lost.")


def notes(ledger: Ledger, *lines: Note) -> list[bool | Exception]:
    with ledger.transaction() as tx:
        return note(tx, lines)


def said(job: Claimed, kind: Kind, **data: object) -> Note:
    return Note(job.key, job.attempt, clock.micros(), kind, data)


def die(ledger: Ledger, job: Claimed) -> None:
    """Report that the worker was lost while the job ran."""
    assert end(ledger, outcome(job, State.QUEUED, Kind.RESCUED, death=True, failure=LOST)) == [True]


def executions(ledger: Ledger, id: str) -> int:
    return select(ledger, "SELECT executions FROM jobs WHERE id = :id", id=id)[0][0]


# The ends


def test_a_success_keeps_its_result(ledger: Ledger):
    job = running(ledger)

    assert end(ledger, success(job, "[1,2]")) == [True]

    seen = look(ledger, job.id)
    assert (seen.state, seen.result, seen.failure, seen.worker) == (State.SUCCEEDED, "[1,2]", None, "w1@host/1")
    assert seen.finished_at >= seen.started_at
    assert read.summary(ledger, SYSTEM, job.id).result == "[1,2]"
    assert kinds(ledger, job.id) == ["submitted", "claimed", "started", "succeeded"]
    assert counted(ledger) == {("succeeded", "default", "add"): 1}


def test_a_failure_keeps_why(ledger: Ledger):
    job = running(ledger)

    end(ledger, failure(job))

    seen = look(ledger, job.id)
    assert (seen.state, seen.failure, seen.result) == (State.FAILED, BOOM, None)
    assert kinds(ledger, job.id)[-1] == "failed"
    assert counted(ledger) == {("failed", "default", "add"): 1}


def test_a_start_that_was_not_written_before_comes_with_the_end(ledger: Ledger):
    accept(ledger)
    job = take_one(ledger)

    end(ledger, success(job, started_at=1_700_000_000_000_000))

    assert kinds(ledger, job.id) == ["submitted", "claimed", "started", "succeeded"]
    assert look(ledger, job.id).started_at == 1_700_000_000_000_000
    assert executions(ledger, job.id) == 1


def test_a_start_that_was_written_before_is_not_written_again(ledger: Ledger):
    job = running(ledger)

    end(ledger, success(job, started_at=clock.micros()))

    assert kinds(ledger, job.id) == ["submitted", "claimed", "started", "succeeded"]
    assert executions(ledger, job.id) == 1


def test_many_attempts_end_in_one_batch(ledger: Ledger):
    jobs = [running(ledger) for _ in range(4)]

    assert end(ledger, success(jobs[0]), failure(jobs[1]), retry(jobs[2], 5), given_back(jobs[3])) == [True] * 4

    states = [state_of(ledger, job.id) for job in jobs]
    assert states == [State.SUCCEEDED, State.FAILED, State.RETRYING, State.QUEUED]
    counted(ledger)


# The fence


def stale_attempt(ledger: Ledger) -> tuple[Claimed, Claimed]:
    """A job's first attempt, given up, and its second, which holds the job."""
    first = running(ledger)
    end(ledger, given_back(first))
    second = take_one(ledger, worker="w2")
    begin(ledger, second)
    return first, second


def test_a_stale_outcome_changes_nothing_and_sends_nothing(ledger: Ledger):
    first, second = stale_attempt(ledger)
    before = look(ledger, first.id)

    assert end(ledger, success(first, sends=(submission(id="link"),), chords=())) == [False]

    assert look(ledger, first.id) == before
    assert select(ledger, "SELECT id FROM jobs") == [(first.id,)]
    assert end(ledger, success(second)) == [True]
    counted(ledger)


def test_a_repeated_finish_is_a_no_op(ledger: Ledger):
    job = running(ledger)
    done = success(job, sends=(submission(id="link"),))
    end(ledger, done)
    before = look(ledger, job.id), kinds(ledger, job.id), counted(ledger)

    assert end(ledger, done) == [False]
    assert end(ledger, failure(job)) == [False]

    assert (look(ledger, job.id), kinds(ledger, job.id), counted(ledger)) == before


def test_an_attempt_ends_once_in_one_batch(ledger: Ledger):
    job = running(ledger)

    assert end(ledger, success(job), failure(job), success(job)) == [True, False, False]
    assert state_of(ledger, job.id) is State.SUCCEEDED
    assert kinds(ledger, job.id).count("succeeded") == 1
    counted(ledger)


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_attempt_does_not_end_the_one_that_shares_its_batch(ledger: Ledger, late_first: bool):
    first, second = stale_attempt(ledger)
    batch = [failure(first), success(second, "42")]

    answers = end(ledger, *(batch if late_first else batch[::-1]))

    assert answers == ([False, True] if late_first else [True, False])
    assert (state_of(ledger, first.id), look(ledger, first.id).result) == (State.SUCCEEDED, "42")


def test_a_late_start_is_refused(ledger: Ledger):
    first, second = stale_attempt(ledger)
    end(ledger, given_back(second))
    third = take_one(ledger)

    assert not begin(ledger, first)
    assert look(ledger, third.id).started_at is None
    assert kinds(ledger, third.id)[-1] == "claimed"


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_start_is_not_taken_for_the_one_that_shares_its_batch(ledger: Ledger, late_first: bool):
    first = running(ledger)
    end(ledger, given_back(first))
    second = take_one(ledger)
    batch = [Start(first.key, first.attempt, 1), Start(second.key, second.attempt, 2)]

    with ledger.transaction() as tx:
        answers = start(tx, batch if late_first else batch[::-1])

    assert answers == ([False, True] if late_first else [True, False])
    assert look(ledger, first.id).started_at == 2
    assert read.history(ledger, SYSTEM, first.id, 5, 10)[0].data == '{"attempt":2}'


def test_an_attempt_begins_once(ledger: Ledger):
    job = running(ledger)

    assert not begin(ledger, job)
    assert kinds(ledger, job.id) == ["submitted", "claimed", "started"]
    assert executions(ledger, job.id) == 1


# Notes


def test_notes_become_history_and_the_last_progress_the_jobs(ledger: Ledger):
    job = running(ledger)

    assert (
        notes(
            ledger,
            said(job, Kind.PROGRESS, value=1, total=10, note="a"),
            said(job, Kind.LOG, message="hello"),
            said(job, Kind.PROGRESS, value=2, total=10, note="b"),
            said(job, Kind.MESSAGE, hello="world"),
        )
        == [True] * 4
    )

    assert look(ledger, job.id).progress == Progress(2, 10, "b")
    assert kinds(ledger, job.id)[3:] == ["progress", "log", "progress", "message"]


def test_a_line_that_is_no_progress_leaves_the_progress_alone(ledger: Ledger):
    job = running(ledger)
    notes(ledger, said(job, Kind.PROGRESS, value=5, total=10, note="half"))
    notes(ledger, said(job, Kind.LOG, message="hello"))

    assert look(ledger, job.id).progress == Progress(5, 10, "half")


def test_progress_begins_anew_with_each_execution(ledger: Ledger):
    job = running(ledger)
    notes(ledger, said(job, Kind.PROGRESS, value=5, total=10, note="half"))
    end(ledger, given_back(job))
    begin(ledger, take_one(ledger))

    assert look(ledger, job.id).progress is None


def test_a_late_note_says_nothing(ledger: Ledger):
    first, second = stale_attempt(ledger)
    before = look(ledger, second.id)

    assert notes(ledger, said(first, Kind.PROGRESS, value=9)) == [False]
    assert look(ledger, second.id) == before


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_note_is_not_taken_for_the_one_that_shares_its_batch(ledger: Ledger, late_first: bool):
    first, second = stale_attempt(ledger)
    batch = [said(first, Kind.LOG, message="late"), said(second, Kind.LOG, message="fresh")]

    answers = notes(ledger, *(batch if late_first else batch[::-1]))

    assert answers == ([False, True] if late_first else [True, False])
    assert kinds(ledger, first.id).count("log") == 1
    assert read.history(ledger, SYSTEM, first.id, 0, 20)[-1].data == '{"message":"fresh"}'


def test_a_note_after_the_end_says_nothing(ledger: Ledger):
    job = running(ledger)
    end(ledger, success(job))

    assert notes(ledger, said(job, Kind.LOG, message="late")) == [False]
    assert kinds(ledger, job.id)[-1] == "succeeded"


# Retries


def test_a_retry_waits_for_its_time_and_runs_again(ledger: Ledger, fake_clock):
    job = running(ledger)
    end(ledger, retry(job, 5))

    seen = look(ledger, job.id)
    assert (seen.state, seen.worker, seen.started_at, seen.failure) == (State.RETRYING, None, None, BOOM)
    assert take(ledger) == []

    fake_clock.advance(5)
    with ledger.transaction() as tx:
        assert upkeep.fall_due(tx) == 1
    again = take_one(ledger)
    end(ledger, success(again))

    assert again.attempt == 2
    assert look(ledger, job.id).failure is None
    assert kinds(ledger, job.id) == ["submitted", "claimed", "started", "retrying", "claimed", "succeeded"]
    counted(ledger)


def test_a_retry_may_replace_the_message_and_move_to_another_queue_and_task(ledger: Ledger):
    job = running(ledger)
    message = Message('{"task":"other","retries":1}', "{}", "[[3],{},{}]")

    end(ledger, retry(job, -1, message=message, new_task="other", new_queue="slow", new_priority=7))

    assert counted(ledger) == {("retrying", "slow", "other"): 1}
    with ledger.transaction() as tx:
        upkeep.fall_due(tx)
    again = take_one(ledger, queues=["slow"], tasks=["other"])
    assert (again.message, again.task, again.queue) == (message, "other", "slow")
    assert look(ledger, job.id).priority == 7
    end(ledger, success(again))
    assert counted(ledger) == {("succeeded", "slow", "other"): 1}


def test_a_retry_keeps_the_message_if_it_brings_none(ledger: Ledger):
    job = running(ledger)
    end(ledger, retry(job, -1))
    with ledger.transaction() as tx:
        upkeep.fall_due(tx)

    assert take_one(ledger).message == job.message


def test_what_a_retry_would_have_sent_is_dropped(ledger: Ledger):
    job = running(ledger)
    end(ledger, retry(job, 5, sends=(submission(id="error-callback"),)))

    assert select(ledger, "SELECT id FROM jobs") == [(job.id,)]


@pytest.mark.parametrize("start_written", [True, False])
def test_max_attempts_caps_executions(ledger: Ledger, fake_clock, start_written: bool):
    id = accept(ledger, max_attempts=2)
    for _ in range(2):
        assert state_of(ledger, id) is State.QUEUED
        job = take_one(ledger)
        if start_written:
            begin(ledger, job)
        end(ledger, retry(job, started_at=clock.micros(), sends=(submission(id=f"after-{job.attempt}"),)))
        with ledger.transaction() as tx:
            upkeep.fall_due(tx)

    assert executions(ledger, id) == 2
    assert (state_of(ledger, id), look(ledger, id).failure) == (State.FAILED, BOOM)
    assert kinds(ledger, id)[-1] == "failed"
    assert select(ledger, "SELECT id FROM jobs WHERE id <> :id", id=id) == [("after-2",)]
    counted(ledger)


def test_a_job_given_back_before_it_began_is_no_execution(ledger: Ledger):
    id = accept(ledger, max_attempts=1)
    for _ in range(3):
        end(ledger, given_back(take_one(ledger)))

    assert executions(ledger, id) == 0
    end(ledger, success(take_one(ledger), started_at=clock.micros()))
    assert state_of(ledger, id) is State.SUCCEEDED


# Cancels and deaths


@pytest.mark.parametrize("report", [retry, given_back])
def test_a_job_that_was_asked_to_end_does_not_go_on(ledger: Ledger, report):
    job = running(ledger)
    ledger.do(cancel, Asked(SYSTEM, job.id))

    assert end(ledger, report(job)) == [True]

    assert state_of(ledger, job.id) is State.CANCELLED
    assert kinds(ledger, job.id)[-2:] == ["cancel-requested", "cancelled"]
    assert take(ledger) == []
    counted(ledger)


def test_a_job_that_does_not_go_on_sends_nothing(ledger: Ledger):
    job = running(ledger)
    ledger.do(cancel, Asked(SYSTEM, job.id))

    end(ledger, retry(job, 5, new_queue="slow", new_task="other", sends=(submission(id="error-callback"),)))

    assert select(ledger, "SELECT id FROM jobs") == [(job.id,)]
    counted(ledger)


def test_a_success_that_came_before_the_cancel_stays_a_success(ledger: Ledger):
    job = running(ledger)
    ledger.do(cancel, Asked(SYSTEM, job.id))

    end(ledger, success(job))

    assert state_of(ledger, job.id) is State.SUCCEEDED


def test_a_lost_worker_means_another_attempt(ledger: Ledger):
    job = running(ledger)

    die(ledger, job)

    assert state_of(ledger, job.id) is State.QUEUED
    assert kinds(ledger, job.id)[-1] == "rescued"
    again = take_one(ledger)
    assert (again.attempt, again.deaths) == (2, 1)
    counted(ledger)


def test_a_job_that_must_not_run_twice_fails_with_its_worker(ledger: Ledger):
    job = running(ledger, rerun=False)

    die(ledger, job)

    assert (state_of(ledger, job.id), look(ledger, job.id).failure.code) == (State.FAILED, "worker-lost")
    assert kinds(ledger, job.id)[-1] == "failed"
    counted(ledger)


def test_a_job_that_keeps_killing_workers_is_quarantined(ledger: Ledger):
    ledger.max_deaths = 3
    id = accept(ledger)
    for _ in range(3):
        assert state_of(ledger, id) is State.QUEUED
        job = take_one(ledger)
        begin(ledger, job)
        die(ledger, job)

    seen = look(ledger, id)
    assert (seen.state, seen.failure.code) == (State.FAILED, "quarantined")
    assert "lost 3 workers" in seen.failure.message
    assert kinds(ledger, id)[-1] == "quarantined"
    assert take(ledger) == []
    counted(ledger)


def test_deaths_count_as_executions_for_max_attempts(ledger: Ledger):
    job = running(ledger, max_attempts=1)

    die(ledger, job)

    assert (state_of(ledger, job.id), look(ledger, job.id).failure.code) == (State.FAILED, "worker-lost")


# What follows


def test_the_next_link_of_a_chain_commits_with_the_success(ledger: Ledger):
    told = []
    job = running(ledger)
    ledger.announce = told.append

    end(ledger, success(job, sends=(submission(id="link", queue="next"),)))

    assert state_of(ledger, "link") is State.QUEUED
    [tx] = told
    assert (set(tx.wakes), tx.ends) == ({"next"}, {job.id: 4})
    counted(ledger)


def test_a_success_that_cannot_be_committed_sends_no_link(ledger: Ledger):
    job = running(ledger)

    assert roll_back(ledger, finish, success(job, sends=(submission(id="link"),))) == [True]

    assert state_of(ledger, job.id) is State.RUNNING
    assert select(ledger, "SELECT id FROM jobs") == [(job.id,)]


def test_a_link_that_exists_already_does_not_hinder_the_success(ledger: Ledger):
    accept(ledger, id="link")
    job = running(ledger, queue="other")

    assert end(ledger, success(job, sends=(submission(id="link", existing_ok=True),))) == [True]
    assert kinds(ledger, "link") == ["submitted"]
    counted(ledger)


def test_the_links_behind_a_failed_one_are_recorded_as_failed(ledger: Ledger):
    job = running(ledger)
    upstream = replace(BOOM, code="upstream-failed")

    end(ledger, failure(job, sends=(submission(id="link", failure=upstream), submission(id="error-callback"))))

    assert (state_of(ledger, "link"), look(ledger, "link").failure.code) == (State.FAILED, "upstream-failed")
    assert [job.id for job in take(ledger, 10)] == ["error-callback"]


def test_a_long_error_is_cut_for_lists(ledger: Ledger):
    job = running(ledger)

    end(ledger, failure(job, failure=replace(BOOM, message="x" * 5000)))

    assert len(look(ledger, job.id).failure.message) == 2000


def test_an_outcome_tells_when_it_waits_and_where_work_is(ledger: Ledger):
    first, second = running(ledger), running(ledger)
    told = []
    ledger.announce = told.append

    end(ledger, given_back(first, new_queue="other"), retry(second, 60))

    [tx] = told
    assert set(tx.wakes) == {"other"}
    assert abs(tx.due_at - clock.micros() - 60 * SECOND) < 30 * SECOND
