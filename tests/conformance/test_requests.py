"""Cancel and reopen: what a person asks of a job, and who may ask it."""

import json
from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM, Permission, Principal
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.errors import Forbidden, JobFinal, JobNeverRan, JobNotFinal, JobNotFound, JobSucceeded, TaskNotAllowed
from celeriac.jobs import ErrorCode, Failure, Kind, Message
from celeriac.ledger import Asked, Ledger, cancel, nodes, read, reopen
from celeriac.states import State
from conformance.moves import (
    BOOM,
    MESSAGE,
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

ANN = Principal("ann", PERMISSIONS[Role.SUBMITTER])
BOB = Principal("bob", PERMISSIONS[Role.SUBMITTER])
VIEWER = Principal("vera", PERMISSIONS[Role.VIEWER])


def test_a_waiting_job_is_cancelled_on_the_spot(ledger: Ledger):
    queued, scheduled = accept(ledger), accept(ledger, run_at=clock.micros() + 60 * SECOND)
    retrying = running(ledger, queue="other")
    end(ledger, retry(retrying, 60))

    for id in (queued, scheduled, retrying.id):
        assert ledger.do(cancel, Asked(ANN, id)) is State.CANCELLED

    for id in (queued, scheduled, retrying.id):
        job = look(ledger, id)
        assert (job.state, job.failure) == (State.CANCELLED, None)
        assert job.finished_at is not None
        assert kinds(ledger, id)[-1] == "cancelled"
    assert counted(ledger) == {("cancelled", "default", "add"): 2, ("cancelled", "other", "add"): 1}


def test_a_running_jobs_worker_is_told_to_cancel(ledger: Ledger):
    job = running(ledger)
    told = []
    ledger.announce = told.append

    assert ledger.do(cancel, Asked(ANN, job.id)) is State.RUNNING

    assert (look(ledger, job.id).state, kinds(ledger, job.id)[-1]) == (State.RUNNING, "cancel-requested")
    assert read.cancels(ledger, "w1@host/1") == [(job.key, job.attempt)]
    assert read.cancels(ledger, "w2") == []
    assert told[0].cancels == {"w1@host/1"}


@pytest.mark.parametrize(("pool", "cooperative"), [("prefork", False), ("threads", True), ("solo", True)])
def test_a_request_to_stop_says_whether_the_pool_can_enforce_it(ledger: Ledger, pool: str, cooperative: bool):
    ledger.do(nodes.register, replace(NODE, pool=pool))
    job = running(ledger)
    ledger.do(cancel, Asked(ANN, job.id))

    last = read.history(ledger, ANN, job.id, 0, 10)[-1]
    assert json.loads(last.data) == {"pool": pool, "cooperative": cooperative}
    assert read.is_cooperative(ledger, NODE.id) is cooperative


def test_a_second_cancel_of_a_running_job_adds_nothing(ledger: Ledger):
    job = running(ledger)
    ledger.do(cancel, Asked(ANN, job.id))

    assert ledger.do(cancel, Asked(ANN, job.id)) is State.RUNNING
    assert kinds(ledger, job.id).count("cancel-requested") == 1


def test_a_cancelled_job_is_no_longer_anybodys_to_cancel(ledger: Ledger):
    job = running(ledger)
    ledger.do(cancel, Asked(ANN, job.id))
    end(ledger, outcome(job, State.CANCELLED, Kind.CANCELLED))

    assert read.cancels(ledger, "w1@host/1") == []


@pytest.mark.parametrize("report", [success, failure])
def test_a_job_that_has_ended_is_not_cancelled(ledger: Ledger, report):
    job = running(ledger)
    end(ledger, report(job))
    before = look(ledger, job.id)

    with pytest.raises(JobFinal):
        ledger.do(cancel, Asked(ANN, job.id))
    assert look(ledger, job.id) == before


def test_a_batch_of_cancels_answers_each(ledger: Ledger):
    waiting, other = accept(ledger), accept(ledger, owner="bob")
    job = running(ledger, queue="other")

    with ledger.transaction() as tx:
        answers = cancel(tx, [Asked(ANN, id) for id in (waiting, "nothing", other, job.id, waiting)])

    assert [answer if isinstance(answer, State) else type(answer) for answer in answers] == [
        State.CANCELLED,
        JobNotFound,
        JobNotFound,
        State.RUNNING,
        State.CANCELLED,
    ]
    assert kinds(ledger, waiting) == ["submitted", "cancelled"]
    assert state_of(ledger, other) is State.QUEUED
    counted(ledger)


@pytest.mark.parametrize("move", [cancel, reopen])
def test_somebody_elses_job_looks_like_none(ledger: Ledger, move):
    id = accept(ledger, failure=BOOM)

    with pytest.raises(JobNotFound):
        ledger.do(move, Asked(BOB, id))
    with pytest.raises(JobNotFound):
        ledger.do(move, Asked(BOB, "nothing"))


@pytest.mark.parametrize("move", [cancel, reopen])
def test_who_may_only_look_is_refused(ledger: Ledger, move):
    id = accept(ledger, failure=BOOM)

    with pytest.raises(Forbidden) as refusal:
        ledger.do(move, Asked(VIEWER, id))
    assert Permission.JOBS_CONTROL_ALL in str(refusal.value)


def test_a_failed_job_goes_through_again_under_its_id(ledger: Ledger):
    message = Message('{"task":"add","retries":4,"id":"x"}', MESSAGE.properties, MESSAGE.body)
    job = running(ledger, max_attempts=1, expires_at=clock.micros() + 3600 * SECOND, message=message)
    end(ledger, failure(job, result=None))
    told = []
    ledger.announce = told.append

    assert ledger.do(reopen, Asked(ANN, job.id)) is State.QUEUED

    seen = look(ledger, job.id)
    assert (seen.state, seen.failure, seen.finished_at, seen.started_at) == (State.QUEUED, None, None, None)
    assert (seen.expires_at, seen.run_at, seen.cancel_requested_at, seen.worker) == (None, None, None, None)
    assert seen.message.headers == '{"task":"add","retries":0,"id":"x"}'
    assert set(told[0].wakes) == {"default"}
    assert kinds(ledger, job.id)[-2:] == ["failed", "reopened"]

    again = take_one(ledger)
    assert again.attempt == 2
    begin(ledger, again)
    end(ledger, retry(again))  # max_attempts counts from the reopening
    assert state_of(ledger, job.id) is State.FAILED
    counted(ledger)


def test_a_cancelled_job_that_is_opened_again_is_no_longer_asked_to_end(ledger: Ledger):
    job = running(ledger)
    ledger.do(cancel, Asked(ANN, job.id))
    end(ledger, outcome(job, State.CANCELLED, Kind.CANCELLED))

    ledger.do(reopen, Asked(ANN, job.id))
    end(ledger, retry(take_one(ledger), 60))

    assert state_of(ledger, job.id) is State.RETRYING
    counted(ledger)


def test_the_worker_deaths_of_a_job_count_anew_after_a_reopen(ledger: Ledger):
    job = running(ledger)
    ledger.max_deaths = 2
    end(ledger, outcome(job, State.QUEUED, Kind.RESCUED, death=True, failure=BOOM))
    second = take_one(ledger)
    end(ledger, failure(second))
    ledger.do(reopen, Asked(ANN, job.id))

    third = take_one(ledger)
    end(ledger, outcome(third, State.QUEUED, Kind.RESCUED, death=True, failure=BOOM))

    assert (third.deaths, state_of(ledger, job.id)) == (0, State.QUEUED)


def test_an_attempt_from_before_a_reopen_stays_fenced_off(ledger: Ledger):
    job = running(ledger)
    end(ledger, failure(job))
    ledger.do(reopen, Asked(ANN, job.id))
    take(ledger)

    assert end(ledger, success(job)) == [False]
    assert state_of(ledger, job.id) is State.RUNNING


def test_a_job_that_has_not_ended_is_not_opened_again(ledger: Ledger):
    id = accept(ledger)
    with pytest.raises(JobNotFinal):
        ledger.do(reopen, Asked(ANN, id))

    take(ledger)
    with pytest.raises(JobNotFinal):
        ledger.do(reopen, Asked(ANN, id))
    assert kinds(ledger, id) == ["submitted", "claimed"]


def test_a_job_that_succeeded_is_not_opened_again(ledger: Ledger):
    job = running(ledger)
    end(ledger, success(job))

    with pytest.raises(JobSucceeded):
        ledger.do(reopen, Asked(ANN, job.id))
    assert look(ledger, job.id).result == "3"


def test_a_job_is_opened_once_however_often_it_is_asked_in_one_batch(ledger: Ledger):
    id = accept(ledger, failure=BOOM)

    with ledger.transaction() as tx:
        assert reopen(tx, [Asked(ANN, id), Asked(ANN, id)]) == [State.QUEUED, State.QUEUED]

    assert kinds(ledger, id) == ["submitted", "failed", "reopened"]
    counted(ledger)


def test_the_error_of_an_earlier_attempt_does_not_stick_to_a_cancelled_job(ledger: Ledger):
    job = running(ledger)
    end(ledger, retry(job, 60))
    ledger.do(cancel, Asked(ANN, job.id))

    assert look(ledger, job.id).failure is None
    assert select(ledger, "SELECT error_code, error_type, error_message FROM jobs") == [(None, None, None)]


def test_many_jobs_are_cancelled_and_opened_in_one_batch_each(ledger: Ledger):
    ids = [answer.id for answer in submit_all(ledger, *(submission(queue=f"q{n % 3}") for n in range(50)))]

    for move, state in ((cancel, State.CANCELLED), (reopen, State.QUEUED)):
        with ledger.transaction() as tx:
            assert move(tx, [Asked(SYSTEM, id) for id in ids]) == [state] * 50
        counted(ledger)
    assert len(take(ledger, 100, queues=("q0", "q1", "q2"))) == 50


def test_a_job_that_never_ran_cannot_be_opened_again(ledger: Ledger):
    id = accept(ledger, failure=Failure(ErrorCode.UPSTREAM, "ValueError", "the link before it failed"))

    with pytest.raises(JobNeverRan, match="Retry the job that failed"):
        ledger.do(reopen, Asked(SYSTEM, id))


def test_a_token_for_other_tasks_opens_nothing_again_and_still_cancels(ledger: Ledger):
    narrow = Principal("ann", PERMISSIONS[Role.SUBMITTER], ("mail.*",))
    id = accept(ledger)

    assert ledger.do(cancel, Asked(narrow, id)) is State.CANCELLED
    with pytest.raises(TaskNotAllowed, match=r"mail\.\*"):
        ledger.do(reopen, Asked(narrow, id))
