"""What Celery sends becomes a job, or is refused in a sentence; on both databases."""

from typing import Any

import pytest

from celeriac import Celeriac, clock
from celeriac.ledger import Ledger
from celeriac.states import State

YEARS = 101 * 365 * 24 * 3600


@pytest.fixture
def app(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Celeriac:
    monkeypatch.setattr(Celeriac, "ledger", ledger)
    made = Celeriac("sender")

    @made.task(name="add")
    def add(x: Any, y: Any = 0) -> None:
        pass

    return made


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"task_id": "a\0b"}, "'id' is a text of 1 to 255 characters without NUL"),
        ({"task_id": "x" * 300}, "'id' is a text of 1 to 255"),
        ({"task_id": 7}, "'id' is a text of 1 to 255"),
        ({"root_id": "\ud800"}, "'root_id' is a text"),
        ({"time_limit": "5"}, "time_limit is a number of seconds"),
        ({"time_limit": -1}, "time_limit is a number of seconds"),
        ({"time_limit": float("nan")}, "time_limit is a number of seconds"),
        ({"soft_time_limit": [1]}, "soft_time_limit is a number of seconds"),
        ({"soft_time_limit": True}, "soft_time_limit is a number of seconds"),
        ({"priority": True}, "A priority is a whole number"),
        ({"priority": 10}, "A priority is a whole number"),
        ({"queue": "a\0"}, "The name of a queue"),
        ({"queue": "\ud800"}, "The name of a queue"),
        ({"countdown": YEARS}, "eta is more than 100 years ahead"),
        ({"expires": YEARS}, "expires is more than 100 years ahead"),
        ({"args": ("\ud800",)}, "lone surrogate"),
        ({"kwargs": {"y": ["\udfff"]}}, "lone surrogate"),
        ({"args": (1,), "headers": {"trace": "\ud800"}}, "lone surrogate"),
    ],
)
def test_what_no_job_can_have_is_refused_in_a_sentence(app: Celeriac, options: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        app.tasks["add"].apply_async(**({"args": (1,)} | options))


def test_the_name_of_a_task_without_code_here_is_checked_as_well(app: Celeriac):
    with pytest.raises(ValueError, match="'task' is a text of 1 to 255"):
        app.send_task("a\0b")


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 10**30, "a\0b", {"deep": [float("nan")]}])
def test_arguments_that_only_pythons_json_knows_become_a_job(app: Celeriac, value: Any):
    id = app.tasks["add"].delay(value).id

    assert app.job(id).state is State.QUEUED


@pytest.mark.parametrize("options", [{"time_limit": 5.5, "soft_time_limit": 0}, {"priority": 9}, {"countdown": 3600}])
def test_what_a_job_can_have_it_gets(app: Celeriac, options: dict[str, Any]):
    now = clock.micros()
    job = app.job(app.tasks["add"].apply_async((1,), **options).id)

    assert job.priority == options.get("priority", 0)
    assert (job.run_at or now) >= now + options.get("countdown", 0) * 1_000_000 - 1_000_000
