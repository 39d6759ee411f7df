"""Celery's own command line on a Celeriac app: `celery worker` with each pool, status, inspect, purge."""

import re
import subprocess
import sys

import pytest
from instance import Instance, instance, until

from celeriac.ledger import read
from celeriac.states import State


@pytest.fixture
def house(tmp_path):
    with instance(tmp_path / "home") as made:
        yield made


def celery(house: Instance, *arguments: str) -> subprocess.Popen:
    """Start `celery -A jobs_for_tests …`; `house` ends it."""
    log = open(house.home / f"{arguments[0]}.log", "ab")  # noqa: SIM115 - the process owns it
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "jobs_for_tests", *arguments],
        cwd=house.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=house.environment,
        start_new_session=True,
    )  # fmt: skip
    log.close()
    house.processes[arguments[0]] = process
    return process


def output(house: Instance, *arguments: str) -> str:
    """Run `celery …` to its end and return what it said."""
    process = celery(house, *arguments)
    assert process.wait(30) == 0, house.log(arguments[0])
    house.processes.pop(arguments[0])
    return house.log(arguments[0])


def worker(house: Instance, *arguments: str) -> None:
    process = celery(house, "worker", *arguments)
    until(lambda: process.poll() is not None or house.online(process.pid), "the worker")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_celery_worker_runs_jobs_in_each_pool(house, pool):
    worker(house, "-P", pool, "-c", "2")

    assert {job.state for job in house.ended(house.submit("add", count=5, x=1, y=2))} == {State.SUCCEEDED}
    assert [each.pool for each in read.all_workers(house.ledger)] == [pool]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_with_autoscale_grows_to_its_most(house, pool):
    worker(house, "-P", pool, "--autoscale=3,1")
    ids = house.submit("wait", count=3, seconds=3)

    until(lambda: all(house.job(id).started_at for id in ids), "all three to run")
    assert [house.state(id) for id in ids] == ["running"] * 3
    assert [each.concurrency for each in read.all_workers(house.ledger)] == [3]


def test_status_and_inspect_name_the_worker(house):
    worker(house, "-P", "threads", "-n", "one@here")

    assert "one@here: OK" in output(house, "status")
    assert "pong" in output(house, "inspect", "ping")


def test_purge_cancels_what_waits_and_says_how_much(house):
    ids = house.submit("add", count=3, x=1, y=2)

    assert "Purged 3 messages" in output(house, "purge", "-f")
    assert {house.job(id).state for id in ids} == {State.CANCELLED}


@pytest.mark.parametrize("arguments", [["-P", "threads"], ["-P", "solo"], []])
def test_an_idle_worker_stops_at_once(house, arguments):
    worker(house, *arguments)
    house.kill("worker", 15)

    assert not read.all_workers(house.ledger)[0].online
    assert not re.search("Traceback|ERROR", house.log("worker"))
