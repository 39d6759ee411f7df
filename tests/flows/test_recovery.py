"""How soon work goes on: after kill -9 of workers, with the default settings and with fast ones; and after a freeze.

The long forms (`make soak`) kill a hundred workers and saturate the machine; they print what they measured.
"""

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import get_context

import httpx
import pytest
from instance import FAST, SETUPS, Instance, free_port, freeze, on, until
from nursery import Nursery
from oracle import violations

from celeriac.ledger import nodes, read
from celeriac.states import State

DEFAULT = dict.fromkeys(FAST, "")
# As docs/operations.md says; a test there compares.
QUICK = DEFAULT | {
    "CELERIAC_BEAT_SECONDS": "0.5", "CELERIAC_LEASE_SECONDS": "2.5", "CELERIAC_LEADER_SECONDS": "2",
}  # fmt: skip
SATURATED_SECONDS = float(os.environ.get("SATURATED_SECONDS", "240"))
soak = [pytest.mark.soak, pytest.mark.timeout(0)]
Running = Callable[..., AbstractContextManager[Instance]]


@pytest.fixture
def running(instance_on: Running, nursery: Nursery) -> Running:
    """What gives an instance on a set-up."""
    return partial(instance_on, nursery=nursery)


def kill_and_wait(house: Instance, names: list[str]) -> list[float]:
    """Kill the nodes of these names, each with one job at work; return how long each job took to run again."""
    ids = house.submit("wait", count=len(names), seconds=60)
    for name in names:
        house.worker(name, concurrency=1)
    until(lambda: all(house.job(id).started_at for id in ids), "all to run")
    before = {id: house.runs(f"wait:{id}") for id in ids}
    for number in range(len(names)):
        house.worker(f"next{number}", concurrency=1)
    began = time.monotonic()
    for name in names:
        os.killpg(house.processes.pop(name).pid, signal.SIGKILL)
    seconds: dict[str, float] = {}

    def all_again() -> bool:
        for id in ids:
            if id not in seconds and len(house.runs(f"wait:{id}")) > len(before[id]):
                seconds[id] = time.monotonic() - began
        return len(seconds) == len(ids)

    until(all_again, "all to run again")
    for number in range(len(names)):  # and these are killed with their jobs, which then end by a cancel
        os.killpg(house.processes.pop(f"next{number}").pid, signal.SIGKILL)
    from celeriac.access import SYSTEM
    from celeriac.ledger import Asked, cancel

    for id in ids:
        house.ledger.do(cancel, Asked(SYSTEM, id))
    house.ended(ids)
    assert violations(house.ledger, ids) == []
    return list(seconds.values())


PROFILES = [
    pytest.param("sqlite", QUICK, 1, 5, id="fast"),
    pytest.param("rabbitmq", QUICK, 1, 5, id="fast, rabbitmq", marks=SETUPS["rabbitmq"]),
    *(
        pytest.param(setup, settings, 25, promised, id=f"{name}, a hundred, {setup}", marks=[*SETUPS[setup], *soak])
        for name, settings, promised in (("fast", QUICK, 5), ("default", DEFAULT, 15))
        for setup in SETUPS
    ),
]


@pytest.mark.parametrize(("setup", "settings", "rounds", "promised"), PROFILES)
def test_the_jobs_of_a_killed_worker_run_again_in_time(running: Running, setup, settings, rounds, promised):
    at_once = 1 if rounds == 1 else 4
    with running(setup, **settings) as house:
        house.keeper()
        seconds: list[float] = []
        for _ in range(rounds):
            seconds += kill_and_wait(house, [f"victim{number}" for number in range(at_once)])

    most = sorted(seconds)[int(0.99 * (len(seconds) - 1))]
    told = f"median {statistics.median(seconds):.1f} s, p99 {most:.1f} s, worst {max(seconds):.1f} s"
    print(f"{len(seconds)} kills on {setup}, promised {promised} s: {told}")
    assert most <= promised, told


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("settings", [DEFAULT, QUICK], ids=["default", "fast"])
@pytest.mark.parametrize("setup", on("sqlite", "postgres"))
def test_on_a_saturated_machine_nobody_is_taken_for_dead(running: Running, setup, settings):
    """More children than processors, all of them busy, and as many strangers beside them."""
    with running(setup, **settings) as house, contextlib.ExitStack() as stack:
        for keeper in ("keeper1", "keeper2"):
            house.keeper(keeper)
        for name in ("one", "two"):
            house.worker(name, concurrency=8)
        for _ in range(2 * (os.cpu_count() or 1)):
            burner = get_context("fork").Process(target=_burn, daemon=True)
            burner.start()
            stack.callback(burner.kill)
        ids: list[str] = []
        deadline = time.monotonic() + SATURATED_SECONDS
        while time.monotonic() < deadline:
            more = house.submit("burn", count=20, seconds=0.5)
            house.ended(more, 300)
            ids += more
        terms = nodes.leader(house.ledger, "keeper").term
        workers = read.all_workers(house.ledger)

        print(f"saturated for {SATURATED_SECONDS:.0f} s on {setup}: {len(ids)} jobs, load {os.getloadavg()[0]:.1f},"
              f" {len(workers)} workers known of 2, term {terms}")  # fmt: skip
        assert [worker.lost_at for worker in workers] == [None, None]
        assert terms == 1
        assert len(house.runs("burn")) == len(ids)
        assert violations(house.ledger, ids) == []


def _burn() -> None:
    while True:
        pass


# A freeze: SIGSTOP for three leases, and back


@pytest.mark.parametrize("setup", on("postgres"))
def test_a_worker_that_was_frozen_comes_back_fenced_and_works_on(running: Running, setup):
    with running(setup) as house:
        house.keeper()
        frozen = house.worker("frozen", concurrency=1)
        [id] = house.submit("wait", seconds=1)
        until(lambda: house.job(id).started_at, "it to start")
        freeze(house, frozen)
        house.worker("other", concurrency=1)
        [job] = house.ended([id])
        assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
        _wait_leases(3)
        os.killpg(frozen.pid, signal.SIGCONT)
        until(lambda: "goes on under a new identity" in house.log("frozen"), "it to notice")

        house.kill("other", signal.SIGTERM)
        [after] = house.ended(house.submit("add", x=1, y=1))  # on the one that was frozen
        assert after.state is State.SUCCEEDED
        assert violations(house.ledger, [id, after.id]) == []


@pytest.mark.parametrize("setup", on("sqlite"))
def test_a_leader_that_was_frozen_comes_back_and_stands_by(running: Running, setup):
    with running(setup) as house:
        house.worker()
        frozen = house.keeper("frozen")
        until(lambda: nodes.leader(house.ledger, "keeper"), "a leader")
        house.keeper("standby")
        freeze(house, frozen)
        first = nodes.leader(house.ledger, "keeper").holder
        until(lambda: nodes.leader(house.ledger, "keeper").holder != first, "another leader")
        [job] = house.ended(house.submit("flaky", failures=1))  # what falls due is the new leader's
        assert job.state is State.SUCCEEDED
        _wait_leases(3)
        os.killpg(frozen.pid, signal.SIGCONT)
        until(lambda: "Another keeper leads now" in house.log("frozen"), "it to notice")

        [job] = house.ended(house.submit("flaky", failures=1))
        assert job.state is State.SUCCEEDED
        assert nodes.leader(house.ledger, "keeper").holder != first
        assert violations(house.ledger) == []


def test_a_web_process_that_was_frozen_answers_what_it_was_asked_and_lost_nothing(running: Running):
    with running("sqlite") as house:
        house.worker()
        frozen, other = house.web(), free_port()
        house.start("other", "web", house.app, CELERIAC_PORT=str(other))
        until(lambda: _is_ready(other), "the other web process")
        with house.http as http:
            ids = [http.post("/jobs", json={"task": "add", "args": {"x": 1, "y": 1}}).json()["id"] for _ in range(5)]
            freeze(house, frozen)
            with pytest.raises(httpx.TimeoutException):
                http.get("/jobs", timeout=0.5)
            body = {"task": "add", "args": {"x": 2, "y": 2}}
            headers = {"Authorization": f"Bearer {house.token}"}
            ids.append(httpx.post(f"http://127.0.0.1:{other}/api/v1/jobs", json=body, headers=headers).json()["id"])
            house.ended(ids)
            os.killpg(frozen.pid, signal.SIGCONT)

            assert http.get(f"/jobs/{ids[-1]}").json()["state"] == "succeeded"
            assert violations(house.ledger, ids) == []


def _wait_leases(count: float) -> None:
    """Let time pass, of the leases that the instances of tests have."""
    deadline = time.monotonic() + count * float(FAST["CELERIAC_LEASE_SECONDS"])
    until(lambda: time.monotonic() > deadline, "time to pass")


def _is_ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    return False
