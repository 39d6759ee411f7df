"""Tasks that misbehave: their job ends with a clear error, and nothing else is harmed."""

import pytest
from instance import until

from celeriac.access import SYSTEM
from celeriac.ledger import Asked, cancel, reopen
from celeriac.states import State


@pytest.mark.parametrize(
    ("task", "code", "type", "message"),
    [
        ("hostile", "raised", "Hostile", ""),
        ("not_json", "result-not-storable", "EncodeError", "not JSON"),
        ("quit", "raised", "SystemExit", "3"),
    ],
)
def test_a_strange_end_is_told_as_it_was(house, task, code, type, message):
    [job] = house.ended(house.submit(task))

    assert (job.state, job.failure.code, job.failure.type) == (State.FAILED, code, type)
    assert message in job.failure.message


def test_a_traceback_names_the_line_that_raised(house):
    [job] = house.ended(house.submit("fail", message="nul \0 and surrogate"))

    assert "jobs_for_tests.py" in job.failure.traceback
    assert "\0" not in job.failure.message


def test_text_that_no_database_takes_is_made_storable(house):
    import json

    [job] = house.ended(house.submit("strange_text"))

    assert json.loads(job.result) == "a\0b\ufffdc\U0001f600"


def test_a_result_of_three_megabytes_arrives_whole(house):
    text = "x" * 3_000_000
    [job] = house.ended(house.submit("echo", value=text))

    assert len(job.result) == len(text) + 2


def test_a_job_that_kills_its_process_runs_again(house):
    [job] = house.ended(house.submit("die_once"))

    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    assert "rescued" in house.kinds(job.id)


def test_a_job_that_always_kills_its_process_is_quarantined_and_others_go_on(house):
    poison = house.submit("die")
    others = house.submit("add", count=20, x=1, y=2)

    assert all(job.state is State.SUCCEEDED for job in house.ended(others))
    [job] = house.ended(poison)
    assert (job.state, job.failure.code) == (State.FAILED, "quarantined")
    assert len(house.runs("die")) >= 3
    assert house.kinds(job.id)[-1] == "quarantined"


def test_a_cancelled_task_may_clean_up_and_ends(house):
    [id] = house.submit("wait", seconds=60)
    until(lambda: house.job(id).started_at, "the job to start")
    house.ledger.do(cancel, Asked(SYSTEM, id))

    [job] = house.ended([id])
    assert job.state is State.CANCELLED
    assert house.kinds(id)[-2:] != ["cancelled", "cancelled"]


def test_a_task_that_swallows_its_cancel_is_killed(house):
    [id] = house.submit("stubborn", seconds=60)
    until(lambda: house.job(id).started_at, "the job to start")
    house.ledger.do(cancel, Asked(SYSTEM, id))

    [job] = house.ended([id])
    assert job.state is State.CANCELLED
    assert house.ended(house.submit("add", x=1, y=1))[0].state is State.SUCCEEDED


def test_a_failed_job_that_a_person_retries_runs_under_the_same_id(house):
    [job] = house.ended(house.submit("fail", message="first"))
    house.ledger.do(reopen, Asked(SYSTEM, job.id))
    until(lambda: house.kinds(job.id).count("failed") == 2, "the second failure")

    assert house.job(job.id).attempt == 2


def test_max_attempts_caps_what_a_task_would_retry(house):
    import msgspec
    from jobs_for_tests import app

    from celeriac.app import Tasks
    from celeriac.app.tasks import JobRequest
    from celeriac.ledger import submit

    request = JobRequest("flaky", msgspec.json.encode({"failures": 5}), max_attempts=2)
    id = house.ledger.do(submit, Tasks(app).submission(request, "tester")).id

    [job] = house.ended([id])
    assert (job.state, job.attempt) == (State.FAILED, 2)


def test_a_job_that_is_opened_again_does_not_see_its_old_cancel(house):
    [id] = house.submit("wait", seconds=60)
    until(lambda: house.job(id).started_at, "the job to start")
    house.ledger.do(cancel, Asked(SYSTEM, id))
    house.ended([id])
    house.ledger.do(reopen, Asked(SYSTEM, id))
    until(lambda: house.job(id).started_at, "the job to start again")

    assert house.job(id).state is State.RUNNING
    house.ledger.do(cancel, Asked(SYSTEM, id))
    house.ended([id])


def test_jobs_of_a_queue_that_is_no_longer_consumed_wait_for_it(house, client):
    client.app.control.cancel_consumer("default", reply=True, timeout=5, limit=1)
    ids = house.submit("echo", count=3, value=1)
    client.app.control.add_consumer("default", reply=True, timeout=5, limit=1)

    assert {job.state for job in house.ended(ids)} == {State.SUCCEEDED}


def test_a_cancelled_coroutine_may_clean_up_and_ends(house):
    [id] = house.submit("slow_async", seconds=60)
    until(lambda: house.job(id).started_at, "the job to start")
    before = len(house.runs("slow_async_closed"))
    house.ledger.do(cancel, Asked(SYSTEM, id))

    [job] = house.ended([id])
    assert job.state is State.CANCELLED
    assert len(house.runs("slow_async_closed")) == before + 1
