"""A Celeriac app refuses where it is written what no job of it could ever be."""

import celery
import pytest

import celeriac
from celeriac import Celeriac
from celeriac.app import load_app
from celeriac.errors import CannotStart

WHOLE = "whole number from 0 to 9"


@pytest.mark.parametrize("priority", [10, -1, 55, 1.5, "3", True])
def test_a_task_with_a_priority_no_job_can_have_is_refused_where_it_is_made(priority):
    app = Celeriac("priorities")
    with pytest.raises(CannotStart, match=WHOLE):

        @app.task(priority=priority)
        def late():
            pass


@pytest.mark.parametrize("name", ["time_limit", "soft_time_limit"])
@pytest.mark.parametrize("limit", ["5", -1, True, float("nan"), float("inf"), 1e12, [5]])
def test_a_task_with_a_time_limit_that_is_none_is_refused_where_it_is_made(name, limit):
    app = Celeriac("limits")

    @app.task(**{name: limit})
    def late():
        pass

    with pytest.raises(CannotStart, match=f"has the {name} .* number of seconds"):
        app.finalize()


@pytest.mark.parametrize("priority", [None, 0, 9])
def test_a_task_may_have_a_priority_that_a_job_can_have(priority):
    app = Celeriac("priorities")

    @app.task(priority=priority)
    def soon():
        pass

    assert soon.priority == priority


class Late(celery.Task):
    name = "mail.late"
    priority = 55


def old_app() -> celery.Celery:
    return celery.Celery("old", set_as_current=False)


@pytest.mark.parametrize("made", [lambda: Celeriac("classes"), lambda: celeriac.attach(old_app(), mode="own")])
def test_a_task_made_by_a_class_is_refused_with_its_name(made):
    with pytest.raises(CannotStart, match=r"mail\.late has the priority 55"):
        made().register_task(Late())


@pytest.mark.filterwarnings(r"ignore:\s*The 'priority' task attribute")  # which Celery deprecates
def test_an_app_is_not_taken_over_with_such_a_task_and_stays_as_it_was():
    app = old_app()
    app.register_task(Late())

    with pytest.raises(CannotStart, match=r"mail\.late has the priority 55"):
        celeriac.attach(app, mode="own")
    assert type(app) is celery.Celery


def test_an_observed_app_keeps_the_priorities_its_broker_understands():
    app = celeriac.attach(old_app())
    app.register_task(Late())

    assert app.tasks["mail.late"].priority == 55


def test_an_app_with_such_a_task_is_not_served_and_its_line_is_named(tmp_path, monkeypatch):
    code = "from celeriac import Celeriac\napp = Celeriac('late')\n@app.task(priority=55)\ndef late(): pass\n"
    (tmp_path / "late_jobs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(CannotStart, match=rf"late_jobs cannot be imported: A task has .*{WHOLE}.* at .*late_jobs.py:3"):
        load_app("late_jobs")
