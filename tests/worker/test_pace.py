"""Rate limits: whose turn it is on one node, with time that only passes when told to."""

import json
from types import SimpleNamespace

import pytest

from celeriac.worker.pace import Pace

TASKS = {"free": SimpleNamespace(rate_limit=None), "slow": SimpleNamespace(rate_limit="2/s")}


def test_tasks_without_a_limit_are_always_free(fake_clock):
    pace = Pace(TASKS, TASKS)

    assert json.loads(pace.free) == ["free"]
    assert pace.spend("free") is None


def test_a_limited_task_has_its_next_turn_when_the_time_has_passed(fake_clock):
    pace = Pace(TASKS, TASKS)
    assert pace.turns() == ("slow",)
    assert pace.spend("slow") == 0.5
    assert pace.turns() == ()

    fake_clock.advance(0.5)
    assert pace.turns() == ("slow",)


@pytest.mark.parametrize(("limit", "seconds"), [("10/m", 6), ("3600/h", 1), (4, 0.25), ("0.5/s", 2)])
def test_limits_are_read_as_celery_writes_them(fake_clock, limit, seconds):
    tasks = {"slow": SimpleNamespace(rate_limit=limit)}

    assert Pace(tasks, tasks).spend("slow") == pytest.approx(seconds)


@pytest.mark.parametrize("none", [None, 0, "0/s"])
def test_a_limit_that_is_taken_away_frees_the_task(fake_clock, none):
    tasks = {"slow": SimpleNamespace(rate_limit="1/m")}
    pace = Pace(tasks, tasks)
    pace.spend("slow")
    tasks["slow"].rate_limit = none
    pace.read()

    assert json.loads(pace.free) == ["slow"]
