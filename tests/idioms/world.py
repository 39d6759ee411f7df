"""Where an idiom is tried: an attached app, a real worker with one of the pools, and the ledger that knows of it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import idiom_app
from instance import FAST, TESTS, free_port, until
from kombu import pools

from celeriac.access import SYSTEM
from celeriac.errors import JobNotFound
from celeriac.jobs import Job
from celeriac.ledger import Ledger, migrations, read
from celeriac.settings import load
from celeriac.states import State, is_final

MODES = ("own", "observe")
POOLS = ("prefork", "threads", "solo")
CONFIGURATIONS = [(mode, pool) for mode in MODES for pool in POOLS]


@dataclass
class World:
    """One configuration: its mode, its pool, its app as a program beside the worker has it, its ledger."""

    mode: str
    pool: str
    home: Path
    app: Any
    ledger: Ledger
    environment: dict[str, str]
    processes: list[subprocess.Popen] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        """Return a task by its name: `world.add`."""
        if name in self.app.tasks:
            return self.app.tasks[name]
        raise AttributeError(name)

    def ended(self, id: str, *states: State | str) -> Job:
        """Wait until the ledger says that a job has ended, and check how."""
        try:
            until(lambda: self.state(id) in states if states else is_final(self.state(id)), str(states), 20)
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.told(id)}") from None
        return self.job(id)

    def job(self, id: str) -> Job:
        return read.job(self.ledger, SYSTEM, id)

    def state(self, id: str) -> str:
        try:
            return read.summary(self.ledger, SYSTEM, id).state
        except JobNotFound:
            return "unknown"

    def kinds(self, id: str) -> list[str]:
        return [event.kind for event in read.history(self.ledger, SYSTEM, id, 0, 1000)]

    def told(self, id: str) -> str:
        with contextlib.suppress(JobNotFound):
            return f"{self.job(id)} {self.kinds(id)} {self.log()}"
        return f"{id} is unknown. {self.log()}"

    def ran(self, label: str) -> list[str]:
        """Return the lines that tasks left, of those that begin so."""
        return [line for line in (self.home / "ran").read_text().splitlines() if line.startswith(label)]

    def comes(self, label: str, times: int = 1) -> None:
        """Wait for a line that a task leaves."""
        until(lambda: len(self.ran(label)) >= times, f"{label}\n{self.log()}", 20)

    def log(self) -> str:
        return (self.home / "worker.log").read_text(errors="replace")[-3000:]

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen:
        with open(self.home / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**self.environment, **environment}, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(self, name: str = "worker", queues: str = "celery,other,all", **environment: str) -> subprocess.Popen:
        options = ["-c", "3"] if self.pool != "solo" else []
        process = self.start(
            name, "celery", "-A", "idiom_app", "worker", "-P", self.pool, *options, "-Q", queues, "-n", f"{name}@here",
            "-l", "INFO", "--without-gossip", "--without-mingle", **environment,
        )  # fmt: skip
        until(
            lambda: process.poll() is not None or any(w.pid == process.pid for w in read.all_workers(self.ledger)),
            f"{name}\n{self.log()}",
        )
        return process


@contextlib.contextmanager
def world(mode: str, pool: str, home: Path, redis: str, number: int, database: str = "") -> Iterator[World]:
    """Give a configuration with its worker, and end everything it started."""
    urls = f"{redis}/{2 * number}", f"{redis}/{2 * number + 1}"
    environment = {
        **os.environ, **FAST, "CELERIAC_HOME": str(home), "RAN": str(home / "ran"), "IDIOMS_MODE": mode,
        "IDIOMS_BROKER": urls[0], "IDIOMS_BACKEND": urls[1], "PYTHONPATH": f"{TESTS}:{TESTS / 'idioms'}",
        "PYTHONWARNINGS": "default", "CELERIAC_DATABASE_URL": database,
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in ("CELERIAC_HOME", "CELERIAC_DATABASE_URL", "RAN")}
    os.environ.update({name: environment[name] for name in before})
    (home / "ran").touch()
    app = idiom_app.make(mode, *urls)
    app.set_current()
    app.set_default()
    assert load().home == home
    migrations.upgrade(app.ledger)
    made = World(mode, pool, home, app, app.ledger, environment)
    if mode == "own":
        made.start("keeper", "celeriac", "keeper")
    made.worker()
    try:
        yield made
    finally:
        if mode == "observe":
            app.observer.stop(5)
        end(made.processes)
        app.backend.result_consumer.stop()
        app.pool.force_close_all()
        app.close()
        pools.reset()  # the next world's connections have the same URL and another home
        made.ledger.close()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def end(processes: list[subprocess.Popen]) -> None:
    """Kill processes with all their children."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Give the URL of a private Redis."""
    port = free_port()
    with open(folder / "redis.log", "wb") as log:
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)], stdout=log, stderr=log
        )
    try:
        until(lambda: b"Ready to accept" in (folder / "redis.log").read_bytes(), "Redis")
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)
