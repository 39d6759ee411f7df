"""What an attached app's jobs come to when a child, a worker or the ledger is lost."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import celery
import pytest
from celery.concurrency.gevent import TaskPool as Gevent
from celery.concurrency.solo import TaskPool as Solo
from celery.exceptions import ImproperlyConfigured
from instance import until
from world import World, world

import celeriac
from celeriac.states import State
from celeriac.worker.observe import ObserveStep

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def owned(redis, tmp_path_factory) -> World:
    with world("own", "prefork", tmp_path_factory.mktemp("owned"), redis, 6) as made:
        yield made


@pytest.fixture
def observed(redis, tmp_path_factory, request) -> World:
    pool = getattr(request, "param", "prefork")
    with world("observe", pool, tmp_path_factory.mktemp("observed"), redis, 7) as made:
        made.start("keeper", "celeriac", "keeper")
        yield made


def test_a_started_attempt_without_acks_late_is_not_repeated(owned):
    job = owned.ended(owned.dies.delay().id, State.FAILED)

    assert job.failure.code == "worker-lost"
    assert len(owned.ran(f"died:{job.id}")) == 1


def test_a_started_attempt_with_acks_late_runs_again(owned):
    result = owned.dies_late.delay()

    assert result.get(timeout=20) == "alive"
    assert owned.ended(result.id, State.SUCCEEDED).attempt == 2


def test_an_observed_job_that_loses_its_child_ends_as_celery_has_it(observed):
    lost, late = observed.dies.delay(), observed.dies_late.delay()

    assert observed.ended(lost.id, State.FAILED).failure.code == "worker-lost"
    assert observed.ended(late.id, State.SUCCEEDED).attempt == 2


def test_the_jobs_of_an_observed_worker_that_vanished_are_marked(observed):
    result = observed.drifting.delay(60)
    observed.comes(f"drifting:{result.id}")
    until(lambda: observed.state(result.id) == "running", "its start to be seen")
    for process in observed.processes[:1]:
        os.killpg(process.pid, signal.SIGKILL)

    failure = observed.ended(result.id, State.FAILED).failure
    assert (failure.code, "was lost" in failure.message) == ("worker-lost", True)


# Takes the turn to write and keeps it until its input ends.
HOLD = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, 2); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize("observed", ["prefork", "threads", "solo"], indirect=True)
def test_a_ledger_that_cannot_be_written_holds_nobody_up(observed):
    hold = [sys.executable, "-c", HOLD, str(observed.home / "ledger.db.lock")]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        holding.stdout.readline()
        results = [observed.add.delay(n, n) for n in range(20)]
        assert [result.get(timeout=10) for result in results] == [2 * n for n in range(20)]
        assert observed.state(results[0].id) == "unknown"
        holding.stdin.close()
    for result in results:
        observed.ended(result.id, State.SUCCEEDED)


def test_a_green_pool_is_refused_in_words():
    with pytest.raises(ImproperlyConfigured, match="prefork, threads or solo"):
        ObserveStep(SimpleNamespace(pool_cls=Gevent))


def test_wrong_settings_do_not_stop_an_observed_worker(monkeypatch, caplog):
    monkeypatch.setenv("CELERIAC_PORT", "nonsense")
    app = celeriac.attach(celery.Celery("old", broker="memory://", set_as_current=False))
    step = ObserveStep(SimpleNamespace(pool_cls=Solo, app=app, use_eventloop=True, hostname="one@here"))
    step.start(None)

    assert "CELERIAC_PORT" in caplog.text
