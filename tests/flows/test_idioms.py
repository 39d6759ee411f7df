"""The ways people write Celery tasks, each once on the prefork pool; tests/idioms runs them on every pool."""

import pytest
from instance import Instance, on, program, until

from celeriac.states import State


@pytest.fixture(scope="module", params=on())
def place(request, instance_on, nursery) -> Instance:
    with instance_on(request.param, app="jobs_for_idioms:app", nursery=nursery) as made:
        made.keeper()
        made.worker("one")
        yield made


@pytest.fixture
def idioms(place, monkeypatch):
    import jobs_for_idioms

    with program(place, jobs_for_idioms.app, monkeypatch):
        yield jobs_for_idioms


def hooks(place: Instance, id: str) -> list[str]:
    """The hooks that ran for a job, in order."""
    return [run.replace(f":{id}", "") for run in place.runs() if id in run]


def test_a_class_may_be_a_task_and_its_run_a_coroutine(idioms):
    assert idioms.app.tasks["by_class"].delay(1).get(timeout=20) == 2


def test_a_pydantic_task_takes_and_gives_models(idioms):
    assert idioms.greet.delay({"name": "ada"}).get(timeout=20) == {"name": "Ada", "age": 2}


def test_a_shared_task_belongs_to_the_app(idioms):
    assert idioms.app.tasks["everywhere"].delay().get(timeout=20) == "here"


@pytest.mark.parametrize(
    ("how", "called"),
    [
        ("work", ["before", "success", "after:SUCCESS"]),
        ("fail", ["before", "failure", "after:FAILURE"]),
        ("retry", ["before", "retry", "before", "success", "after:SUCCESS"]),
    ],
)
def test_the_hooks_of_a_base_class_are_called(idioms, place, how, called):
    result = idioms.hooked.delay(how)
    place.ended([result.id])

    assert hooks(place, result.id) == called


def test_a_request_class_of_a_tasks_own_hears_of_its_end(idioms, place):
    result = idioms.noting.delay()
    [job] = place.ended([result.id])

    assert job.failure.code == "timeout"
    until(lambda: "noted" in hooks(place, result.id), "its request to be told")
    assert hooks(place, result.id) == ["before", "failure", "after:FAILURE", "noted"]


def test_a_task_that_is_to_be_ignored_ends_without_a_result(idioms, place):
    [job] = place.ended([idioms.ignores.delay().id])

    assert (job.state, job.result) == (State.SUCCEEDED, None)


def test_a_task_that_rejects_its_message_fails(idioms, place):
    [job] = place.ended([idioms.rejects.delay(False).id])

    assert (job.state, job.failure.type, job.failure.message) == (State.FAILED, "Reject", "not now")


def test_a_task_that_rejects_its_message_for_now_is_run_again(idioms, place):
    [job] = place.ended([idioms.rejects.delay(True).id])

    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)


def test_an_ignored_result_is_not_kept_and_the_job_ends(idioms, place):
    [job] = place.ended([idioms.unkept.delay().id])

    assert (job.state, job.result) == (State.SUCCEEDED, None)


def test_a_coroutine_is_awaited(idioms):
    assert idioms.gathers.delay([1, 2, 3]).get(timeout=20) == [2, 4, 6]


def test_a_coroutine_is_retried(idioms):
    assert idioms.retries_async.delay().get(timeout=20) == 2


def test_an_eager_task_runs_where_it_is_called(idioms):
    assert idioms.hooked.apply(("work",)).get() == "work"
    assert idioms.gathers.apply(([4],)).get() == [8]


def test_options_of_a_call_reach_the_job(idioms, place):
    options = {"task_id": "my-own-id", "queue": "elsewhere", "priority": 7, "expires": 600, "time_limit": 5}
    idioms.gathers.apply_async(([1],), **options)

    job = place.job("my-own-id")
    assert (job.queue, job.priority, job.expires_at > job.created_at) == ("elsewhere", 7, True)
    assert '"timelimit":[5,null]' in job.message.headers.replace(" ", "")
