"""What a program sees of its jobs through Celery's results: states of their own, forgetting, revoking, children."""

import pytest
from celery import chain, group
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult
from instance import until

from celeriac.errors import JobNotFound
from celeriac.states import State


def test_a_state_of_the_tasks_own_is_seen_while_it_runs(client, house):
    result = client.says.delay(3)
    until(lambda: result.state == "LOADING", "the state")

    assert result.info == {"current": 3, "total": 4}
    assert house.job(result.id).state is State.RUNNING
    assert house.job(result.id).progress.value == 3
    client.app.control.revoke(result.id, terminate=True)
    house.ended([result.id])


def test_a_state_of_the_tasks_own_ends_with_the_job(client):
    result = client.says.delay()

    assert result.get(timeout=20) == "said"
    assert result.state == "SUCCESS"


def test_a_task_may_declare_itself_failed(client, house):
    [job] = house.ended([client.declares_failure.delay().id])

    assert (job.state, job.failure.type, job.failure.message) == (State.FAILED, "Refused", "not today")


def test_a_forgotten_result_is_gone_and_its_job_is_not(client, house):
    result = client.echo.delay("secret")
    result.get(timeout=20)
    result.forget()

    job = house.job(result.id)
    assert (job.state, job.result, job.celery_state) == (State.SUCCEEDED, None, "FORGOTTEN")
    assert client.app.AsyncResult(result.id).result is None


def test_a_revoke_holds_without_a_worker(client, house):
    result = client.add.apply_async((1, 1), queue="nobody-listens")
    result.revoke()

    assert house.job(result.id).state is State.CANCELLED
    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)


def test_a_revoke_leaves_a_running_job_alone_unless_it_is_to_terminate(client, house):
    result = client.wait.delay(60)
    until(lambda: house.job(result.id).started_at, "it to start")
    result.revoke()
    assert "cancel-requested" not in house.kinds(result.id)

    result.revoke(terminate=True)
    [job] = house.ended([result.id])
    assert job.state is State.CANCELLED


def test_a_revoke_by_remote_control_is_a_cancel(client, house):
    result = client.add.apply_async((1, 1), countdown=60)
    client.app.control.broadcast("revoke", {"task_id": result.id}, reply=True, timeout=5, limit=1)

    assert house.job(result.id).state is State.CANCELLED


def test_a_waiting_job_and_an_unknown_id_are_told_apart(client):
    waiting = client.add.apply_async((1, 1), countdown=60)
    unknown = client.app.AsyncResult("no-such-id")

    assert (waiting.state, waiting.info, waiting.name) == ("PENDING", None, "add")
    assert (unknown.state, unknown.info, unknown.name) == ("PENDING", None, None)
    assert client.app.job(waiting.id).state is State.SCHEDULED
    with pytest.raises(JobNotFound):
        client.app.job("no-such-id")
    waiting.revoke()


def test_a_result_knows_the_jobs_its_task_has_made(client):
    result = client.parent.delay()
    child = result.get(timeout=20)

    assert [each.id for each in result.children] == [child]


def test_a_chain_is_collected_from_its_first_result(client):
    result = chain(client.add.s(1, 1), client.add.s(2)).delay()
    result.get(timeout=20)

    assert [value for _, value in result.parent.collect()] == [2, 4]


def test_a_group_is_restored_by_its_id(client):
    result = group(client.add.s(n, n) for n in range(3)).delay()
    result.save()
    result.get(timeout=20)

    assert GroupResult.restore(result.id, app=client.app).get(timeout=20) == [0, 2, 4]


def test_a_result_that_is_too_large_fails_the_job_in_words(client, house):
    [job] = house.ended([client.big.delay(34).id])

    assert (job.state, job.failure.code) == (State.FAILED, "result-not-storable")
    assert "CELERIAC_MAX_RESULT_BYTES" in job.failure.message


def test_a_traceback_begins_with_the_tasks_own_code(client, house):
    [job] = house.ended([client.fail.delay("no").id])
    frames = [line for line in job.failure.traceback.splitlines() if line.startswith('  File "')]

    assert "jobs_for_tests.py" in frames[0]
