"""A private instance of Celeriac for a test: its own home, its own port, real processes that can be killed.

Processes run the real command line. Waiting is polling with a deadline, here and nowhere else.
"""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import kombu.pools
import pytest
from nursery import Nursery, Process

from celeriac.access.principals import SYSTEM, Role
from celeriac.app import Tasks, connect, load_app
from celeriac.app.tasks import JobRequest
from celeriac.errors import JobNotFound, LedgerUnavailable
from celeriac.jobs import Filter, Job
from celeriac.ledger import Ledger, keys, migrations, read, submit
from celeriac.ledger.dialects import sqlite
from celeriac.settings import load
from celeriac.states import is_final

TESTS = Path(__file__).parent
# What an instance may stand on, with the marks of what that needs; brokers stand beside Postgres.
SETUPS = {
    "sqlite": [],
    "postgres": [pytest.mark.postgres],
    "rabbitmq": [pytest.mark.postgres, pytest.mark.rabbitmq],
    "redis": [pytest.mark.postgres, pytest.mark.redis],
}
# Recovery in a test takes two or three seconds instead of fifteen; what is proved is the same.
FAST = {
    "CELERIAC_BEAT_SECONDS": "0.3",
    "CELERIAC_LEASE_SECONDS": "2",
    "CELERIAC_LEADER_SECONDS": "1.5",
    "CELERIAC_CANCEL_GRACE_SECONDS": "0.7",
    "CELERIAC_SHUTDOWN_SECONDS": "3",
    "CELERIAC_DRAIN_SECONDS": "0.3",
}


def on(*setups: str) -> list[Any]:
    """Return set-ups as parameters of a test: these, or all."""
    return [pytest.param(name, marks=SETUPS[name]) for name in setups or SETUPS]


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> object:
    """Wait until a condition holds and return its value; fail with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return value


def freeze(house: "Instance", process: subprocess.Popen | Process) -> None:
    """Let a process stand still, between two writes: on SQLite others cannot write while one is in the midst of it."""
    with mock.patch.object(sqlite, "TURN_SECONDS", 0.3):
        for _ in range(20):
            os.killpg(process.pid, signal.SIGSTOP)
            try:
                with house.ledger.transaction():
                    return
            except LedgerUnavailable:
                os.killpg(process.pid, signal.SIGCONT)
                time.sleep(0.05)
    raise AssertionError("it writes all the time")


@contextlib.contextmanager
def busy(threads: list[threading.Thread], over: threading.Event) -> Iterator[None]:
    """Threads run for a block, at the end of which they are told that it is over."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(70)


class _Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Have a signal end what is done in here, after so long; it must not end by itself."""

    def interrupt(*_: object) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Interrupted:
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    raise AssertionError(f"it ended within {seconds} s")


# Below those that outgoing connections get; sessions that test side by side have a thousand each.
_FIRST = 17_000 + 1000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8)
_ports = itertools.cycle(random.sample(range(_FIRST, _FIRST + 1000), 1000))


def free_port() -> int:
    """Return a port that nobody listens at, and that no other test is given soon."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always another port")


class Instance:
    """One home folder and the processes started on it."""

    def __init__(
        self, home: Path, app: str = "jobs_for_tests:app", database_url: str = "", nursery: Nursery | None = None,
        **environment: str,
    ) -> None:  # fmt: skip
        self.home = home
        self.nursery = nursery
        self.app = app
        self.port = free_port()
        broker_url = environment.get("CELERIAC_BROKER_URL")
        self.settings = load(home=home, port=self.port, database_url=database_url or None, broker_url=broker_url)
        self.environment = {
            **os.environ, **FAST, "CELERIAC_HOME": str(home), "CELERIAC_DATABASE_URL": database_url,
            "CELERIAC_PORT": str(self.port),
            "PYTHONPATH": str(TESTS), "RAN": str(home / "ran"), "PYTHONWARNINGS": "default", **environment,
        }  # fmt: skip
        self.processes: dict[str, subprocess.Popen | Process] = {}
        home.mkdir(exist_ok=True)
        migrations.upgrade(self.ledger)
        self.token = keys.create_token(self.ledger, "test", "tester", Role.ADMIN)

    @property
    def ledger(self) -> Ledger:
        return connect(self.settings)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=30,
        )

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen | Process:
        """Start `celeriac <arguments>` under a name; its output goes to a file of that name in the home."""
        if self.nursery is not None:
            quick = self.nursery.start(
                [*arguments], {**self.environment, **environment}, self.home, self.home / f"{name}.log"
            )
            self.processes[name] = quick
            return quick
        log = open(self.home / f"{name}.log", "ab")  # noqa: SIM115 - the process owns it
        process = subprocess.Popen(
            [sys.executable, "-m", "celeriac", *arguments], cwd=self.home, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, env={**self.environment, **environment}, start_new_session=True,
        )  # fmt: skip
        log.close()
        self.processes[name] = process
        return process

    def program(self, name: str, module: str, *arguments: str, **environment: str) -> Process:
        """Start the function `main` of a module of the tests, as `start` does."""
        assert self.nursery is not None
        made = self.nursery.start(
            [*arguments], {**self.environment, **environment}, self.home, self.home / f"{name}.log", module
        )
        self.processes[name] = made
        return made

    def worker(
        self, name: str = "one", queues: str = "default", concurrency: int = 2, wait: bool = True,
        pool: str | None = None, **environment: str,
    ):  # fmt: skip
        arguments = ["-Q", queues, "-c", str(concurrency), "-n", name, *(["-P", pool] if pool else [])]
        process = self.start(name, "worker", environment.pop("app", self.app), *arguments, **environment)
        if wait:
            until(lambda: process.poll() is not None or self.online(process.pid), f"worker {name}\n{self.log(name)}")
        return process

    def keeper(self, name: str = "keeper", **environment: str) -> subprocess.Popen | Process:
        return self.start(name, "keeper", **environment)

    def web(self, name: str = "web", **environment: str) -> subprocess.Popen | Process:
        process = self.start(name, "web", environment.pop("app", self.app), **environment)
        until(self._answers, f"web\n{self.log(name)}")
        return process

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200
        return False

    def online(self, pid: int) -> bool:
        return any(worker.pid == pid and worker.online for worker in read.all_workers(self.ledger))

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self.processes[name].send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            self.processes.pop(name).wait(30)

    def submit(self, task: str, /, count: int = 1, **arguments) -> list[str]:
        """Submit jobs straight to the ledger, each acknowledged; return their ids."""
        import msgspec

        tasks = Tasks(load_app(self.app))
        ids = []
        for _ in range(count):
            request = JobRequest(task, msgspec.json.encode(arguments))
            ids.append(self.ledger.do(submit, tasks.submission(request, "tester")).id)
        return ids

    def job(self, id: str) -> Job:
        return read.job(self.ledger, SYSTEM, id)

    def kinds(self, id: str) -> list[str]:
        return [event.kind for event in read.history(self.ledger, SYSTEM, id, 0, 1000)]

    def ended(self, ids: Iterable[str], seconds: float = 60) -> list[Job]:
        """Wait until jobs have ended and return them."""
        ids = list(ids)
        until(
            lambda: all(is_final(self.state(id)) for id in ids),
            f"{len(ids)} jobs to end; {self._states(ids)}",
            seconds,
        )
        return [self.job(id) for id in ids]

    def state(self, id: str) -> str:
        try:
            return read.summary(self.ledger, SYSTEM, id).state
        except JobNotFound:  # a link or a body that has not been sent yet
            return "unknown"

    def ids(self, task: str, state: str) -> list[str]:
        """Return the ids of the jobs of a task in a state, newest first."""
        found, _ = read.page(self.ledger, SYSTEM, Filter(tasks=(task,), states=(state,)), None, 100)
        return [job.id for job in found]

    def _states(self, ids: list[str]) -> str:
        return ", ".join(f"{name}: {self.log(name)[-300:]}" for name in self.processes)

    def all_ended(self, seconds: float = 60) -> None:
        """Wait until no job waits or runs."""

        def idle() -> bool:
            with self.ledger.reading() as connection:
                return all(is_final(state) for state, _, _ in read.all_counts(connection))

        until(idle, f"every job to end; {self._states([])}", seconds)

    def runs(self, label: str = "") -> list[str]:
        """Return the lines that task code left behind, one for each execution that began."""
        path = self.home / "ran"
        lines = path.read_text().split() if path.exists() else []
        return [line for line in lines if line.startswith(label)]

    def stop(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait(10)
        self.processes.clear()
        self.ledger.close()


@contextlib.contextmanager
def instance(home: Path, **options: Any) -> Iterator[Instance]:
    """Give an instance, and end everything it started."""
    made = Instance(home, **options)
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def program(house: Instance, app: Any, monkeypatch: Any) -> Iterator[None]:
    """Let an app be what a program beside the instance has, for `.delay()`, `AsyncResult` and remote control."""
    for name in ("CELERIAC_HOME", "CELERIAC_DATABASE_URL", "CELERIAC_BROKER_URL", "RAN"):
        monkeypatch.setenv(name, house.environment.get(name, ""))

    def begin_anew() -> None:
        """Forget its settings, its ear for results, and the connections that kombu keeps for the whole process."""
        app.__dict__.pop("settings", None)
        app.backend.result_consumer.stop()
        app._pool = app.amqp._producer_pool = None
        kombu.pools.reset()

    begin_anew()
    yield
    begin_anew()
    os.environ.pop("RAN", None)
