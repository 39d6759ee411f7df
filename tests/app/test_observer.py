"""The observer never breaks, blocks or slows down what it observes, whatever happens to the ledger."""

import logging

import celery
import pytest

import celeriac
from celeriac.access import SYSTEM
from celeriac.app import observer
from celeriac.jobs import Kind
from celeriac.ledger import Sighting, open_ledger, read


@pytest.fixture
def app(tmp_path, monkeypatch) -> celery.Celery:
    """An observed app whose ledger is not there yet."""
    monkeypatch.setenv("CELERIAC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(observer, "LOOK_SECONDS", 0.05)
    made = celery.Celery("old", broker="memory://", backend="cache+memory://", set_as_current=False)

    @made.task(name="add", shared=False)
    def add(x, y):
        return x + y

    yield celeriac.attach(made)
    made.observer._stopping.set()


def send(app: celery.Celery, *arguments, **options) -> str:
    return app.tasks["add"].apply_async(arguments, **options).id


def come(blank_sqlite, tmp_path):
    """Let the ledger be there, all at once, and return it."""
    (tmp_path / "coming").mkdir()
    (tmp_path / "coming" / "ledger.db").write_bytes(blank_sqlite.read_bytes())
    (tmp_path / "coming").rename(tmp_path / "home")
    return open_ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}")


def test_without_a_ledger_jobs_go_on_and_the_log_says_so_once(app, caplog, wait_until):
    with caplog.at_level(logging.WARNING, "celeriac"):
        for _ in range(5):
            send(app, 1, 2)
        wait_until(lambda: "not observed at the moment" in caplog.text, "the log to say so")

    assert caplog.text.count("not observed at the moment") == 1


def test_what_was_seen_meanwhile_is_written_when_the_ledger_comes(app, blank_sqlite, tmp_path, wait_until):
    id = send(app, 1, 2)
    ledger = come(blank_sqlite, tmp_path)
    app.observer.stop()

    assert read.job(ledger, SYSTEM, id).task == "add"
    ledger.close()


class Unsaid:
    def __repr__(self) -> str:
        return "\ud800"


@pytest.mark.parametrize("value", ["\ud800", {"deep": ["a\udfff"]}, float("nan"), 10**30, "a\0b"])
def test_arguments_that_are_no_text_are_shown_as_well_as_can_be(app, blank_sqlite, tmp_path, value):
    id = send(app, value, 2)
    ledger = come(blank_sqlite, tmp_path)
    app.observer.stop()

    assert read.job(ledger, SYSTEM, id).task == "add"
    ledger.close()


@pytest.mark.parametrize("value", [Unsaid(), {"\ud800": 1}, [Unsaid(), "\ud800"]])
def test_what_is_no_json_is_shown_as_text_that_is_some(value):
    observer.json_text(value).encode()


def test_too_many_sightings_are_dropped_and_counted(app, monkeypatch, caplog):
    monkeypatch.setattr(observer, "MOST", 3)
    for _ in range(7):
        app.observer.see(Sighting("x", 1, Kind.SENT))

    assert app.observer._waiting == 3
    assert app.observer._lost == 4


def test_an_empty_database_is_not_written_to(app, tmp_path, caplog, wait_until):
    (tmp_path / "home").mkdir()
    with caplog.at_level(logging.WARNING, "celeriac"):
        send(app, 1, 2)
        wait_until(lambda: "celeriac migrate" in caplog.text, "the log to say what to do")


def test_wrong_settings_do_not_stop_a_publish(app, monkeypatch, caplog):
    monkeypatch.setenv("CELERIAC_PORT", "nonsense")
    with caplog.at_level(logging.WARNING, "celeriac"):
        assert send(app, 1, 2)

    assert "CELERIAC_PORT" in caplog.text


def test_arguments_that_are_not_json_are_shown_as_they_print(app, blank_sqlite, tmp_path):
    app.conf.accept_content = ["pickle", "json"]
    ledger = come(blank_sqlite, tmp_path)
    id = send(app, {1, 2}, object, serializer="pickle")
    app.observer.stop()

    assert "class 'object'" in read.job(ledger, SYSTEM, id).args
    ledger.close()


def test_secrets_are_not_written(app, blank_sqlite, tmp_path):
    ledger = come(blank_sqlite, tmp_path)
    id = send(app, 1, {"password": "hunter2"})
    app.observer.stop()

    assert "hunter2" not in repr(read.job(ledger, SYSTEM, id))
    ledger.close()


def test_secrets_are_not_written_where_arguments_do_not_fit_the_names(app, blank_sqlite, tmp_path):
    @app.task(name="login", shared=False, typing=False)
    def login(user, password):
        pass

    @app.task(name="listed", shared=False)
    def listed(token, *rest):
        pass

    ledger = come(blank_sqlite, tmp_path)
    ids = [login.delay("ann", "hunter2", 3).id, listed.delay("hunter2", 1, 2).id]
    ids.append(app.tasks["celery.starmap"].delay(task=login.s(), it=[["ann", "hunter2"]]).id)
    app.observer.stop()

    seen = [read.job(ledger, SYSTEM, id) for id in ids]
    assert "hunter2" not in repr(seen)
    assert [job.args for job in seen[:2]] == [
        '{"args":["ann","[redacted]",3],"kwargs":{}}',
        '{"args":["[redacted]",1,2],"kwargs":{}}',
    ]
    ledger.close()


def test_a_failed_publish_is_not_recorded(app, blank_sqlite, tmp_path, monkeypatch):
    ledger = come(blank_sqlite, tmp_path)
    with pytest.raises(Exception, match="not JSON serializable"):
        send(app, object(), 1)
    assert app.observer._waiting == 0
    ledger.close()
