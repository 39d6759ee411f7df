"""Waiting for a result: an end whose announcement was lost is found, whatever else is announced meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conformance.moves import accept
from databases import on_sqlite

from celeriac import Celeriac
from celeriac.access import SYSTEM
from celeriac.broker import News
from celeriac.broker import announcer as announcer_of
from celeriac.broker.sockets import folder_of
from celeriac.ledger import Asked, Ledger, cancel, read
from celeriac.worker import backend
from celeriac.worker.backend import ResultConsumer

pytestmark = on_sqlite  # announcements arrive at once


@pytest.fixture
def app(ledger: Ledger, tmp_path, monkeypatch) -> Iterator[Celeriac]:
    monkeypatch.setenv("CELERIAC_HOME", str(tmp_path))
    monkeypatch.setenv("CELERIAC_DATABASE_URL", ledger.url)
    made = Celeriac("waits", set_as_current=False)
    yield made
    made.backend.result_consumer.stop()
    made.ledger.close()


@pytest.fixture
def consumer(app: Celeriac, fake_clock) -> ResultConsumer:
    """One that has looked at everything just now."""
    made = app.backend.result_consumer
    made.start("")
    made._listener.poke()
    made.drain_events()
    return made


def end_unheard(ledger: Ledger, app: Celeriac):
    """A result that somebody waits for, and that has ended without an announcement."""
    result = app.AsyncResult(accept(ledger))
    app.backend.add_pending_result(result)
    ledger.do(cancel, Asked(SYSTEM, result.id))  # this ledger is not wired to announce
    return result


def settled(app: Celeriac, result) -> bool:
    return result._cache is not None


def announce_another(ledger: Ledger) -> None:
    announcer = announcer_of(ledger.url)
    announcer.announce(News(ends={"another": 4}))
    announcer.close()


def test_a_lost_announcement_is_made_up_for_while_others_keep_coming(consumer, ledger, app, fake_clock):
    result = end_unheard(ledger, app)
    announce_another(ledger)
    consumer.drain_events()
    assert not settled(app, result)

    fake_clock.advance(1.1)
    announce_another(ledger)
    consumer.drain_events()
    assert settled(app, result)


def test_empty_news_mean_to_look_at_everything(consumer, ledger, app):
    result = end_unheard(ledger, app)
    consumer._listener.poke()
    consumer.drain_events()

    assert settled(app, result)


def test_whoever_waits_is_told_of_the_end_and_does_not_look_for_it(consumer, ledger, app, monkeypatch):
    monkeypatch.setattr(backend, "LOOK_SECONDS", 3600)
    monkeypatch.setattr(read, "ended", lambda ledger, ids: pytest.fail("it looked"))
    result = end_unheard(ledger, app)
    announcer = announcer_of(ledger.url)
    announcer.announce(News(ends={result.id: 4}))
    announcer.close()
    consumer.drain_events()

    assert settled(app, result)


SCRIPT = """
import os
from celery.exceptions import TimeoutError
from celeriac import Celeriac

app = Celeriac("waits")
result = app.send_task("nobody.knows", queue="none")
try:
    result.get(timeout=0.01)
except TimeoutError:
    pass
if os.fork() == 0:
    raise SystemExit  # a child that ends leaves its parent's ear alone
os.wait()
print(len(os.listdir(os.environ["NEWS"])), flush=True)
"""


def test_a_program_that_has_waited_leaves_no_ear_behind(app: Celeriac, ledger: Ledger):
    news = folder_of(ledger.url)
    words = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SCRIPT]
    done = subprocess.run(words, env={**os.environ, "NEWS": str(news)}, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, "unclosed" in done.stderr) == (0, "1\n", False), done.stderr
    assert os.listdir(news) == []
