"""Postgres: what a no-op job costs the worker and a Postgres server, with its result kept there.

As `cpu`, with a private Postgres as shipped (synced to disk, autovacuum on). Celeriac has its ledger and its
queue in it; the baseline is Celery with Redis as broker and Postgres as result backend, through SQLAlchemy.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks import cpu, instance, stack
from benchmarks.engines import BODY, Engine
from benchmarks.load import drive
from benchmarks.processes import Process, free_port, stopping, until
from benchmarks.rounds import Measure, Result, alternate
from benchmarks.wire import request

TITLE = "a drain of no-op jobs by one worker, two at a time, everything recorded in Postgres"
MEASURES = [
    Measure("cpu", "CPU, worker and servers", "µs per job", goal="at most 1,000"),
    Measure("worker", "of this: worker", "µs per job"),
    Measure("database", "of this: Postgres (and Redis)", "µs per job"),
    Measure("rate", "drained", "jobs per s", more=True, goal="1.5 times, aim 4"),
    Measure("commits", "transactions that wrote", "per job", goal="at most 0.1"),
]


class Postgres:
    """A private server."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._as: tuple[str, ...] = ()
        if os.getuid() == 0:
            self._as = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
            shutil.chown(folder, "postgres", "postgres")
        self._programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self._run("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([*self._as, self._programs / program, *arguments], check=True, capture_output=True, cwd="/")

    def start(self) -> Process:
        """Start it and wait until it answers."""
        argv = [*self._as, str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port),
                "-h", "127.0.0.1", "-k", ""]  # fmt: skip
        process = Process("postgres", argv, self._folder, {})
        until(self._answers, "Postgres")
        return process

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @cached_property
    def _watcher(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(self.url, autocommit=True)

    def ask(self, question: str) -> int:
        """Return a number."""
        row = self._watcher.execute(question).fetchone()  # type: ignore[arg-type]
        return int(row[0]) if row else 0

    def watching(self) -> float:
        """Return the CPU seconds that our own questions have cost the server."""
        times = psutil.Process(self._watcher.info.backend_pid).cpu_times()
        return float(times.user + times.system)

    def transactions(self) -> int:
        """Return how many transactions have written something."""
        return self.ask("SELECT txid_snapshot_xmax(txid_current_snapshot())")


@contextlib.contextmanager
def server() -> Iterator[tuple[Postgres, Process]]:
    """Give a private server, and end it."""
    with tempfile.TemporaryDirectory(prefix="postgres-bench-") as folder, stopping([]) as processes:
        made = Postgres(Path(folder))
        process = made.start()
        processes.append(process)
        yield made, process


Meanwhile = Callable[[instance.Instance, Postgres], AbstractContextManager[object]]


def _nothing(*_: object) -> AbstractContextManager[object]:
    return contextlib.nullcontext()


@contextlib.contextmanager
def celeriac(meanwhile: Meanwhile = _nothing, app: str = instance.APP) -> Iterator[Engine]:
    """Give a worker node of Celeriac whose ledger and queue are in Postgres, and what happens there while it drains."""
    with (
        server() as (postgres, process),
        instance.instance(CELERIAC_DATABASE_URL=postgres.url, CELERIAC_LOG_LEVEL="WARNING") as ours,
        contextlib.ExitStack() as stack,
    ):
        ours.app = app
        web, worker = ours.web(), ours.worker()
        post = request("POST", instance.JOBS, BODY, ours.token)

        def filled() -> None:
            ours.stop(web)
            stack.enter_context(meanwhile(ours, postgres))

        yield Engine(
            worker, Servers(postgres, process), lambda jobs: drive(ours.port, [post], 16, most=jobs).expect(202),
            lambda: postgres.ask("SELECT count(*) FROM jobs WHERE state = 'succeeded'"), filled, postgres.transactions,
        )  # fmt: skip


@contextlib.contextmanager
def celery_on(broker: str = "", *nodes: Process) -> Iterator[Engine]:
    """Give a plain Celery worker with its results in Postgres, on Redis or another broker."""
    with server() as (postgres, process), stack.stack() as theirs:
        theirs.broker = broker or theirs.broker
        theirs.results = f"db+{postgres.url.replace('postgresql:', 'postgresql+psycopg:')}"
        worker = theirs.worker()
        theirs.submit(1)
        until(lambda: postgres.ask("SELECT count(*) FROM pg_tables WHERE tablename = 'celery_taskmeta'"), "Celery")

        def ended() -> int:
            return postgres.ask("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")

        until(lambda: ended() == 1, "the first result")
        servers = Servers(postgres, process, *(nodes or theirs.processes[:1]))
        yield Engine(worker, servers, theirs.submit, lambda: ended() - 1, commits=postgres.transactions)


class Servers(Process):
    """Postgres, and whatever else serves: their CPU together, without what our own questions cost."""

    def __init__(self, postgres: Postgres, *servers: Process) -> None:
        self._postgres, self._servers = postgres, servers

    def cpu(self) -> float:
        """Return the CPU seconds of all."""
        return sum(server.cpu() for server in self._servers) - self._postgres.watching()


def run(quick: bool) -> Result:
    """Measure both."""
    jobs = 2_000 if quick else 10_000
    sides = {"Celeriac": cpu.side(celeriac, jobs), "Celery, Postgres results": cpu.side(celery_on, jobs)}
    samples = alternate(sides, 2 if quick else 3)
    return Result("postgres", TITLE, MEASURES, samples, [f"{jobs:,} jobs in each round."])
