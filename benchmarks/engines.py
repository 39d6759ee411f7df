"""The engines that `cpu` compares: each makes a worker wait, fills its queue, and lets it drain.

An engine gives the processes whose CPU counts, a way to submit, and a way to see how many jobs
have ended. The worker is warm, and stopped (SIGSTOP) while its queue is filled, so that the
drain alone is measured.
"""

import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import instance, stack
from benchmarks.load import drive
from benchmarks.processes import Process, until
from benchmarks.wire import request

BODY = {"task": "echo", "args": {"value": 1}}
DRAMATIQ = "benchmarks.apps.dramatiq_tasks"


@dataclass
class Engine:
    """An engine that is running."""

    worker: Process
    database: Process | None
    submit: Callable[[int], object]
    ended: Callable[[], int]
    filled: Callable[[], object] = lambda: None  # called when the queue is full, before the drain
    commits: Callable[[], int] | None = None


@contextlib.contextmanager
def celeriac() -> Iterator[Engine]:
    """Give a worker node of Celeriac; jobs come in over HTTP, and web is ended before the drain."""
    with instance.instance(CELERIAC_LOG_LEVEL="WARNING") as ours:  # as Celery has it
        web = ours.web()
        worker = ours.worker()
        post = request("POST", instance.JOBS, BODY, ours.token)
        with _reading(ours.ledger) as ledger:

            def ended() -> int:
                return _count(ledger, "SELECT count(*) FROM jobs WHERE state = 'succeeded'")

            yield Engine(
                worker, None, lambda jobs: drive(ours.port, [post], 16, most=jobs).expect(202), ended,
                lambda: ours.stop(web), ours.commits,
            )  # fmt: skip


@contextlib.contextmanager
def celery_redis() -> Iterator[Engine]:
    """Give a plain Celery worker with its results in Redis."""
    with stack.stack() as theirs:
        yield Engine(theirs.worker(), theirs.processes[0], theirs.submit, lambda: theirs.keys(1))


@contextlib.contextmanager
def celery_sqlite() -> Iterator[Engine]:
    """Give a plain Celery worker with its results in SQLite, through SQLAlchemy."""
    with stack.stack() as theirs:
        file = theirs.folder / "results.db"
        theirs.results = f"db+sqlite:///{file}"
        worker = theirs.worker()
        theirs.submit(1)
        until(lambda: file.exists() and file.stat().st_size > 0, "Celery's table of results")
        with _reading(file) as results:

            def ended() -> int:
                with contextlib.suppress(sqlite3.OperationalError):
                    return _count(results, "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")
                return 0

            until(lambda: ended() == 1, "the first result")
            yield Engine(worker, theirs.processes[0], theirs.submit, lambda: ended() - 1)


@contextlib.contextmanager
def dramatiq(python: str) -> Iterator[Engine]:
    """Give two worker processes of dramatiq, eight threads each by default, with their results in Redis."""
    with stack.stack() as theirs:
        worker = theirs.start("dramatiq", python, "-m", "dramatiq", DRAMATIQ, "-p", "2")
        yield Engine(
            worker, theirs.processes[0], lambda jobs: theirs.submit(jobs, python, DRAMATIQ), lambda: theirs.keys(1)
        )


@contextlib.contextmanager
def python_with_dramatiq() -> Iterator[str]:
    """Give a Python that has dramatiq, in a temporary environment; an empty text if it cannot be installed."""
    with tempfile.TemporaryDirectory(prefix="dramatiq-bench-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "dramatiq[redis]"]
        print("  installing dramatiq", file=sys.stderr, flush=True)
        yield python if subprocess.run(install, check=False, capture_output=True).returncode == 0 else ""


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
        yield connection


def _count(connection: sqlite3.Connection, query: str) -> int:
    [count] = connection.execute(query).fetchone()
    return int(count)
