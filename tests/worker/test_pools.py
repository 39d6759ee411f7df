"""Threads and solo: attempts in the worker's own process, where cancels and limits reach a task that reports."""

import signal

import pytest
from instance import Instance, instance, until

from celeriac.access import SYSTEM
from celeriac.ledger import Asked, cancel, read
from celeriac.states import State


@pytest.fixture(scope="module", params=["threads", "solo"])
def house(request, tmp_path_factory) -> Instance:
    with instance(tmp_path_factory.mktemp(request.param)) as made:
        made.keeper()
        made.worker(concurrency=2, pool=request.param)
        made.pool = request.param
        yield made


def begun(house: Instance, task: str, **arguments) -> str:
    [id] = house.submit(task, **arguments)
    until(lambda: house.job(id).started_at, "it to start")
    return id


def test_the_ledger_shows_the_pool_and_its_size(house):
    [worker] = [each for each in read.all_workers(house.ledger) if each.online]

    assert (worker.pool, worker.concurrency) == (house.pool, {"threads": 2, "solo": 1}[house.pool])


def test_jobs_run_one_after_the_other_or_side_by_side(house):
    assert {job.result for job in house.ended(house.submit("add", count=20, x=1, y=2))} == {"3"}


def test_what_a_task_reports_is_seen_while_it_runs(house):
    id = begun(house, "wait", seconds=2)
    until(lambda: house.job(id).progress, "progress")

    assert house.job(id).state is State.RUNNING
    house.ended([id])


def test_a_report_comes_before_the_end_in_the_history(house):
    [job] = house.ended(house.submit("talk"))

    assert house.kinds(job.id) == ["submitted", "claimed", "started", "log", "message", "progress", "succeeded"]


def test_a_cancel_ends_a_task_when_it_next_reports_progress(house):
    id = begun(house, "wait", seconds=60)
    house.ledger.do(cancel, Asked(SYSTEM, id))

    [job] = house.ended([id], 20)
    assert job.state is State.CANCELLED


def test_a_task_may_ask_whether_it_is_cancelled(house):
    id = begun(house, "polls", seconds=60)
    house.ledger.do(cancel, Asked(SYSTEM, id))

    [job] = house.ended([id], 20)
    assert (job.state, job.result) == (State.SUCCEEDED, '"polled"')


def test_a_cancel_ends_a_coroutine_where_it_awaits(house):
    id = begun(house, "slow_async", seconds=60)
    house.ledger.do(cancel, Asked(SYSTEM, id))

    [job] = house.ended([id], 20)
    assert job.state is State.CANCELLED
    assert house.runs("slow_async_closed")


def test_a_soft_limit_reaches_a_task_that_reports_progress(house):
    [job] = house.ended(house.submit("soft_steps"))

    assert job.result == '"caught"'


def test_a_busy_worker_keeps_its_lease(house):
    """FAST has a lease of 2 s: this job holds a solo worker's hub for longer."""
    id = begun(house, "sleep", seconds=3)
    [job] = house.ended([id])

    assert (job.state, job.attempt) == (State.SUCCEEDED, 1)


@pytest.mark.parametrize("task", ["fail", "hostile", "not_json", "quit"])
def test_a_task_that_fails_takes_nobody_with_it(house, task):
    [job] = house.ended(house.submit(task, **({"message": "no"} if task == "fail" else {})))

    assert job.state is State.FAILED
    assert house.ended(house.submit("add", x=1, y=1))[0].state is State.SUCCEEDED


def test_a_thread_that_outlasts_the_shutdown_gives_its_job_back(tmp_path):
    with instance(tmp_path / "home") as house:
        house.worker(pool="threads", CELERIAC_SHUTDOWN_SECONDS="0.5")
        id = begun(house, "sleep", seconds=30)
        house.kill("one", signal.SIGTERM)

        assert house.job(id).state is State.QUEUED
        assert "given-back" in house.kinds(id)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_cold_shutdown_gives_back_what_runs_and_counts_no_death(tmp_path, pool):
    with instance(tmp_path / "home") as house:
        process = house.worker(pool=pool)
        id = begun(house, "sleep", seconds=30)
        process.send_signal(signal.SIGQUIT)
        process.wait(15)

        assert house.job(id).state is State.QUEUED
        assert house.kinds(id)[-1] == "given-back"


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "nonsense"])
def test_a_pool_that_cannot_be_used_is_refused_in_words(tmp_path, pool):
    with instance(tmp_path / "home") as house:
        process = house.worker(pool=pool, wait=False)

        assert process.wait(30) == 2
        assert "prefork, threads and solo" in house.log("one")
        assert "Traceback" not in house.log("one")
