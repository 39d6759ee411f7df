"""The demo's tasks, called as plain functions, and the queues their costs lead to."""

from typing import Any

import pytest

from celeriac.demo.tasks import app, crunch, divide, echo, lcs, sleep
from celeriac.routing import queue_of
from celeriac.testing import inline


def test_lcs_gives_the_match_as_json_can_hold_it() -> None:
    assert lcs("xaby", "ab") == {"text": "ab", "length": 2, "a_at": 1, "b_at": 0}


def test_divide_fails_as_python_does() -> None:
    assert divide(1, 4) == 0.25
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)


@pytest.mark.parametrize("value", [None, "text", [1, {"a": [True]}]])
def test_echo_gives_back_what_it_got(value: Any) -> None:
    assert echo(value) == value


def test_sleep_and_crunch_of_no_time_end_at_once() -> None:
    assert sleep(0) == 0
    assert crunch(0)["hashes"] == 0


@pytest.mark.parametrize(
    ("name", "args", "queue"),
    [
        ("lcs", {"a": "x" * 1_000, "b": ""}, "small"),
        ("lcs", {"a": "", "b": "x" * 1_001}, "large"),
        ("sleep", {"seconds": 5}, "small"),
        ("sleep", {"seconds": 5.1}, "large"),
        ("crunch", {"seconds": 8}, "large"),
    ],
)
def test_large_input_goes_to_the_large_queue(name: str, args: dict[str, Any], queue: str) -> None:
    task = app.tasks[name]
    assert queue_of(task.cost(**args), task.queues) == queue


def test_each_task_runs_as_a_job_in_the_queue_of_its_size() -> None:
    with inline(app) as jobs:
        jobs.raises = True
        lcs.delay("banana", "ananas")
        lcs.delay("a" * 2_000, "b")
        sleep.delay(0.1)
        echo.delay({"a": 1})

        assert [job.queue for job in jobs.ended] == ["small", "large", "small", "small"]
        assert [job.result for job in jobs.ended][2:] == [0.1, {"a": 1}]
        assert jobs.logs(jobs.ended[0].id) == ["Comparing 6 characters with 6."]
        assert jobs.ended[2].progress == 1


def test_tasks_without_a_cost_go_to_the_small_queue() -> None:
    assert app.conf.task_default_queue == "small"
    assert not any(hasattr(app.tasks[name], "cost") for name in ("divide", "echo"))


def test_every_task_says_what_it_does() -> None:
    for name in ("lcs", "sleep", "divide", "crunch", "echo"):
        assert app.tasks[name].run.__doc__
