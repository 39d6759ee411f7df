"""`celeriac.testing`: people's own tests, with jobs that run inline on a real ledger."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import Ignore
from celery.result import allow_join_result

from celeriac import Celeriac, attach, clock, current
from celeriac.errors import CannotStart, JobNotFound, JobsNeverEnd, JobWaits
from celeriac.instance import publisher_of
from celeriac.states import State
from celeriac.testing import Jobs, inline

app = Celeriac("inline-tests")
calls: list[str] = []


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="fail")
def fail(text: str) -> None:
    raise ValueError(text)


@app.task(name="flaky", bind=True, max_retries=3, default_retry_delay=600)
def flaky(self, failures: int) -> str:
    if self.request.retries < failures:
        raise self.retry(exc=RuntimeError("not yet"))
    return f"after {self.request.retries} retries"


@app.task(name="parent")
def parent() -> str:
    result = add.delay(1, 1)
    with pytest.raises(RuntimeError, match="Never call"):
        result.get()
    return result.id


@app.task(name="again")
def again() -> None:
    again.apply_async(countdown=1)


@app.task(name="talk")
def talk() -> None:
    current.log("hello")
    current.progress(3, 4)


@app.task(name="note")
def note_(name: str) -> None:
    calls.append(name)


@app.task(name="state", bind=True)
def state(self) -> None:
    self.update_state(state="BAKING", meta={"current": 1, "total": 2})


@app.task(name="grow", bind=True)
def grow(self, n: int) -> int:
    raise self.replace(chain(add.s(n, 1), add.s(1)))


@app.task(name="wait")
async def wait(n: int) -> int:
    return n


@app.task(name="quiet")
def quiet() -> None:
    raise Ignore


@app.task(name="waiter")
def waiter() -> int:
    with allow_join_result():
        return add.delay(2, 3).get() + 1


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    calls.clear()
    with inline(app) as made:
        yield made


def test_a_job_has_run_when_delay_returns(jobs: Jobs):
    result = add.delay(1, 2)
    [job] = jobs.ended

    assert (job.id, job.task, job.state, job.args, job.result) == (result.id, "add", "succeeded", {"x": 1, "y": 2}, 3)
    assert (result.get(), result.state) == (3, "SUCCESS")


def test_its_history_is_that_of_a_worker(jobs: Jobs):
    id = talk.delay().id

    assert [kind for kind, _ in jobs.events(id)] == ["submitted", "claimed", "started", "log", "progress", "succeeded"]
    assert (jobs.logs(id), jobs.job(id).progress) == (["hello"], 3)


def test_a_failure_is_kept_and_get_raises_it(jobs: Jobs):
    result = fail.delay("broken")

    assert (jobs.ended[0].state, jobs.ended[0].error) == ("failed", "ValueError: broken")
    with pytest.raises(ValueError, match="broken"):
        result.get()


def test_a_failure_is_raised_where_the_job_was_submitted_if_asked_for():
    with inline(app, raises=True) as jobs:
        with pytest.raises(ValueError, match="broken"):
            fail.delay("broken")
        assert [job.state for job in jobs.ended] == ["failed"]
        assert add.delay(1, 1).get() == 2


def test_a_failure_is_raised_after_all_that_follows_from_it_has_run(jobs: Jobs):
    jobs.raises = True
    with pytest.raises(ValueError, match="broken"):
        fail.apply_async(("broken",), link_error=note_.si("callback"))

    assert calls == ["callback"]


def test_a_retry_waits_for_its_time(jobs: Jobs):
    result = flaky.delay(2)

    assert [(job.state, job.attempt) for job in jobs.waiting] == [("retrying", 1)]
    jobs.advance(599)
    assert jobs.job(result.id).attempt == 1
    jobs.advance(1)
    assert jobs.job(result.id).attempt == 2
    jobs.advance(600)
    assert result.get() == "after 2 retries"


def test_time_passes_until_nothing_waits(jobs: Jobs):
    began = clock.micros()
    one, other = flaky.delay(9), add.apply_async((1, 2), countdown=86_400)
    jobs.run_all()

    assert [jobs.job(result.id).state for result in (one, other)] == ["failed", "succeeded"]
    assert clock.micros() - began >= 86_400_000_000
    assert jobs.waiting == []


def test_each_job_runs_at_its_own_time(jobs: Jobs):
    for name, delay in (("third", 30), ("second", 20), ("first", 10)):
        note_.apply_async((name,), countdown=delay)
    jobs.advance(25)

    assert calls == ["first", "second"]


def test_a_delay_counts_from_the_clock_of_the_test(jobs: Jobs):
    jobs.advance(3600)
    note_.apply_async(("later",), countdown=60)
    assert calls == []
    jobs.advance(60)

    assert calls == ["later"]


def test_a_job_that_expires_never_runs(jobs: Jobs):
    note_.apply_async(("late",), countdown=60, expires=30)
    jobs.run_all()

    assert (calls, [job.state for job in jobs.ended]) == ([], ["cancelled"])


def test_the_clock_is_right_again_after_the_block():
    with inline(app) as jobs:
        jobs.advance(86_400)

    assert abs(clock.micros() - time.time_ns() // 1000) < 3_600_000_000
    assert abs(app.now().timestamp() - time.time()) < 3_600


def test_canvas_runs_to_its_end(jobs: Jobs):
    assert chain(add.s(1, 2), add.s(3))().get() == 6
    assert group(add.s(1, 1), add.s(2, 2))().get() == [2, 4]
    assert chord([add.s(n, n) for n in range(50)], total.s())().get() == 2450


def test_a_replaced_job_ends_with_its_canvas(jobs: Jobs):
    assert grow.delay(5).get() == 7


def test_coroutines_and_states_of_ones_own_work(jobs: Jobs):
    assert wait.delay(3).get() == 3
    id = state.delay().id

    assert [data["note"] for kind, data in jobs.events(id) if kind == "progress"] == ["BAKING"]


def test_a_failing_link_gives_up_what_is_behind_it(jobs: Jobs):
    chain(fail.si("no"), add.si(1, 2))()

    assert {job.task: job.state for job in jobs.ended} == {"fail": "failed", "add": "failed"}
    assert len(calls) == 0


def test_what_a_task_submits_runs_after_it(jobs: Jobs):
    parent.delay()

    assert [job.task for job in jobs.ended] == ["parent", "add"]


def test_a_thousand_members_do_not_nest(jobs: Jobs):
    assert chord([add.s(1, 0) for _ in range(300)], total.s())().get() == 300


def test_a_task_that_never_stops_is_an_error_and_not_a_hang(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("celeriac.worker.inline.MOST", 20)
    again.delay()

    with pytest.raises(JobsNeverEnd, match="submit itself"):
        jobs.run_all()


def test_waiting_for_a_job_whose_time_has_not_come_is_an_error_and_not_a_hang(jobs: Jobs):
    later, again = add.apply_async((1, 2), countdown=60), flaky.delay(1)
    last = chain(add.s(1, 2).set(countdown=60), add.s(3))()
    for result in (later, again):
        with pytest.raises(JobWaits, match=r"waits for its time; call advance\(\) or run_all\(\)"):
            result.get(timeout=30)
    with pytest.raises(JobWaits, match="comes after a job that waits for its time"):
        last.get()
    jobs.run_all()

    assert [result.get() for result in (later, again, last)] == [3, "after 1 retries", 6]


def test_waiting_for_what_never_comes_says_why(jobs: Jobs):
    with pytest.raises(JobWaits, match="nobody has submitted it"):
        app.AsyncResult("nothing").get()
    with pytest.raises(JobWaits, match="nothing here runs 'elsewhere' from 'default'"):
        app.send_task("elsewhere").get()


def test_a_task_that_may_wait_for_another_one_has_it_run(jobs: Jobs):
    assert waiter.delay().get() == 6


def test_a_block_within_a_block_has_jobs_and_a_clock_of_its_own(jobs: Jobs):
    jobs.advance(3600)
    before = app.now()
    with inline(app) as inner:
        inner.advance(3600)
        assert 7199 < (app.now() - before).total_seconds() + 3600 < 7300
        add.delay(1, 2)
        assert (len(inner.ended), len(jobs.ended)) == (1, 0)
    assert 0 <= (app.now() - before).total_seconds() < 300
    assert add.delay(2, 2).get() == 4
    assert len(jobs.ended) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"priority": 55}, "from 0 to 9, higher first, not 55"),
        ({"priority": -1}, "not -1"),
        ({"priority": 1.5}, "not 1.5"),
        ({"queue": "x" * 201}, "1 to 200 characters"),
        ({"queue": "a\0b"}, "no NUL"),
    ],
)
def test_what_http_refuses_is_refused_in_python_too(jobs: Jobs, options: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        add.apply_async((1, 2), **options)
    add.apply_async((1, 2), priority=None, queue="x" * 200)

    assert [job.state for job in jobs.ended] == ["succeeded"]


def test_jobs_of_another_thread_run_too(jobs: Jobs):
    threads = [threading.Thread(target=note_.delay, args=[str(n)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(calls) == [str(n) for n in range(8)]
    assert len(jobs.ended) == 8


def test_an_ignored_job_has_ended(jobs: Jobs):
    quiet.delay()

    assert [job.state for job in jobs.ended] == [State.SUCCEEDED]


def test_a_job_that_nobody_submitted_is_not_found(jobs: Jobs):
    with pytest.raises(JobNotFound):
        jobs.job("nothing")


def test_an_app_that_was_attached_runs_inline_if_its_jobs_live_in_the_ledger():
    existing = Celery("existing", broker="memory://")

    @existing.task(name="double")
    def double(n: int) -> int:
        return 2 * n

    with pytest.raises(CannotStart, match='mode="own"'), inline(existing):
        pass
    attach(existing, mode="own")
    with inline(existing) as jobs:
        assert double.delay(4).get() == 8
        assert len(jobs.ended) == 1


def test_each_block_begins_with_nothing_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_HOME", "mine")
    with inline(app) as jobs:
        home = os.environ["CELERIAC_HOME"]
        add.delay(1, 2)
        assert len(jobs.ended) == 1
    with inline(app) as jobs:
        assert (jobs.ended, jobs.waiting) == ([], [])

    assert not os.path.exists(home)
    assert os.environ["CELERIAC_HOME"] == "mine"
    assert "settings" not in vars(app)


def test_no_broker_hears_of_jobs_that_run_inline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_BROKER_URL", "redis://127.0.0.1:1")
    with inline(app):
        assert add.delay(1, 2).get() == 3
        assert publisher_of(app.ledger) is None
