"""attach(app): whatever an existing app looks like and whenever it is attached, its jobs are where its mode says."""

import pickle
import sys
import types

import celery
import pytest
from celery.app.amqp import AMQP

import celeriac
from celeriac.access import SYSTEM
from celeriac.app import load_app
from celeriac.errors import CannotStart, JobExists
from celeriac.ledger import Ledger, open_ledger, read
from celeriac.states import State

OLD = {"broker_url": "memory://", "result_backend": "cache+memory://", "task_default_queue": "old"}


@pytest.fixture
def home(tmp_path, blank_sqlite, monkeypatch) -> Ledger:
    """The ledger of the settings that the apps read."""
    (tmp_path / "ledger.db").write_bytes(blank_sqlite.read_bytes())
    monkeypatch.setenv("CELERIAC_HOME", str(tmp_path))
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    ledger.close()


def plain(**options) -> celery.Celery:
    app = celery.Celery("old", set_as_current=False, **options)
    app.conf.update(OLD)
    return app


def task_of(app: celery.Celery, **options):
    @app.task(name="add", shared=False, **options)
    def add(x, y):
        return x + y

    return add


def the_job(ledger: Ledger, id: str):
    return read.job(ledger, SYSTEM, id)


def waits_in_broker(app: celery.Celery) -> int:
    with app.connection_for_read() as connection:
        return connection.default_channel.queue_declare("old", passive=False).message_count


def test_an_observed_app_publishes_as_before_and_is_recorded(home, wait_until):
    app = celeriac.attach(plain())
    id = task_of(app).delay(1, 2).id
    app.observer.stop()

    job = the_job(home, id)
    assert (job.state, job.queue, job.args, job.observed) == (State.QUEUED, "old", '{"x":1,"y":2}', True)
    assert waits_in_broker(app) >= 1


def test_an_owned_app_puts_its_jobs_into_the_ledger(home):
    app = celeriac.attach(plain(), mode="own")
    id = task_of(app).delay(1, 2).id

    job = the_job(home, id)
    assert (job.state, job.queue, job.observed) == (State.QUEUED, "old", False)
    assert app.AsyncResult(id).state == "PENDING"


def test_a_submit_repeated_with_its_own_id_is_one_job_and_another_is_refused(home):
    add = task_of(celeriac.attach(plain(), mode="own"))
    for _ in range(2):  # the answer to the first was lost, say
        add.apply_async((1, 2), task_id="mine")

    with pytest.raises(JobExists):
        add.apply_async((1, 3), task_id="mine")
    assert the_job(home, "mine").args == '{"x":1,"y":2}'
    assert read.history(home, SYSTEM, "mine", 0, 10)[-1].number == 1


def test_tasks_may_be_there_before_their_app_is_attached(home):
    app = plain()
    add = task_of(app)
    celeriac.attach(app, mode="own")

    assert the_job(home, add.delay(1, 2).id).state is State.QUEUED


@pytest.mark.parametrize("mode", ["observe", "own"])
def test_a_producer_may_have_been_used_before(home, mode):
    app = plain()
    add = task_of(app)
    add.delay(0, 0)
    assert app.AsyncResult("nothing").state == "PENDING"
    celeriac.attach(app, mode=mode)
    id = add.delay(1, 2).id
    if mode == "observe":
        app.observer.stop()

    assert the_job(home, id).observed is (mode == "observe")


def test_attaching_again_changes_nothing(home):
    app = celeriac.attach(plain(), mode="own")
    kind = type(app)
    celeriac.attach(app, mode="own")

    assert type(app) is kind
    assert len(app.steps["worker"]) == 1


def test_a_configuration_read_later_does_not_undo_it(home):
    app = celery.Celery("old", set_as_current=False)
    celeriac.attach(app, mode="own")
    app.config_from_object(OLD)

    assert (app.conf.broker_url, app.conf.task_default_queue) == ("celeriac://", "old")
    app.config_from_object({**OLD, "task_default_queue": "other"}, force=True)
    assert (app.conf.broker_url, app.conf.task_default_queue) == ("celeriac://", "other")


def test_a_configuration_in_django_s_way_is_understood(home, monkeypatch):
    module = types.ModuleType("old_settings")
    vars(module).update(CELERY_BROKER_URL="memory://", CELERY_TASK_DEFAULT_QUEUE="old", CELERY_TASK_ACKS_LATE=True)
    monkeypatch.setitem(sys.modules, "old_settings", module)
    app = celery.Celery("old", set_as_current=False)
    app.config_from_object("old_settings", namespace="CELERY")
    celeriac.attach(app, mode="own")

    assert (app.conf.broker_url, app.conf.task_default_queue) == ("celeriac://", "old")
    assert app.conf.task_acks_late is True


def test_the_names_of_celery_3_are_understood(home):
    app = celery.Celery("old", set_as_current=False)
    app.config_from_object({"BROKER_URL": "memory://", "CELERY_DEFAULT_QUEUE": "old"})
    celeriac.attach(app, mode="own")

    assert (app.conf.broker_url, app.conf.task_default_queue) == ("celeriac://", "old")


def test_the_environment_does_not_lead_an_owned_app_elsewhere(home, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://nowhere.example/0")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://nowhere.example/0")
    app = celeriac.attach(plain(), mode="own")

    assert app.connection_for_read().transport_cls == app.connection_for_write().transport_cls == "celeriac"
    assert app.backend.as_uri() == "celeriac://"


@pytest.mark.parametrize("mode", ["observe", "own"])
def test_classes_of_their_own_keep_working(home, mode):
    class Message(AMQP):
        def as_task_v2(self, *args, **kwargs):
            message = super().as_task_v2(*args, **kwargs)
            message.headers["tenant"] = "seven"
            return message

    class Base(celery.Task):
        abstract = True
        greeting = "hello"

    app = plain(amqp=Message, task_cls=Base)
    celeriac.attach(app, mode=mode)
    add = task_of(app)
    told = app.amqp.as_task_v2("id", "add")

    assert add.greeting == "hello"
    assert told.headers["tenant"] == "seven"


@pytest.mark.parametrize(("acks_late", "rerun"), [(True, True), (False, False)])
def test_whether_an_attempt_is_repeated_is_what_acks_late_says(home, acks_late, rerun):
    from sqlalchemy import text

    app = celeriac.attach(plain(), mode="own")
    id = task_of(app, acks_late=acks_late).delay(1, 2).id

    with home.reading() as connection:
        found = connection.execute(text("SELECT rerun FROM jobs WHERE id = :id"), {"id": id}).scalar()
    assert bool(found) is rerun


def test_nothing_is_exposed_unless_it_is_named(home):
    from celeriac.app import Tasks

    app = celeriac.attach(plain(), mode="own")
    task_of(app)
    assert Tasks(app).names == []
    celeriac.attach(app, mode="own", expose=("a*",))
    assert Tasks(app).names == ["add"]


@pytest.mark.parametrize("mode", ["observe", "own"])
def test_it_pickles_as_an_app_does(home, mode):
    app = celeriac.attach(plain(), mode=mode)
    other = pickle.loads(pickle.dumps(app))

    assert (other.main, other.mode, other.conf.task_default_queue) == ("old", mode, "old")
    assert other.conf.broker_url == app.conf.broker_url


WRONG = [
    (lambda: celeriac.attach(object()), "takes a Celery app"),
    (lambda: celeriac.attach(celeriac.Celeriac("new", set_as_current=False)), "has its ledger already"),
    (lambda: celeriac.attach(plain(), mode="watch"), "observe and own"),
    (lambda: celeriac.attach(plain(), expose=("a",)), "Leave expose out"),
    (lambda: celeriac.attach(plain(), mode="own", expose="mail.*"), 'expose=("mail.*",)'),
    (lambda: celeriac.attach(celeriac.attach(plain()), mode="own"), "attached in mode observe"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_what_cannot_be_attached_so_is_refused_in_words(wrong, told):
    with pytest.raises(CannotStart) as caught:
        wrong()
    assert told in caught.value.detail


def test_an_app_is_found_by_name_once_it_is_attached(home, monkeypatch):
    module = types.ModuleType("old_app")
    module.app = plain()
    monkeypatch.setitem(sys.modules, "old_app", module)

    with pytest.raises(CannotStart, match=r"Add `celeriac\.attach\(app\)`"):
        load_app("old_app:app")
    celeriac.attach(module.app)
    assert load_app("old_app") is module.app
