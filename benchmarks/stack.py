"""The baseline: Redis, Celery and Flask under gunicorn, put together the usual way.

Redis appends to its file once a second (as much durability as most people give it) and nothing
else; gunicorn has two workers; Celery runs with its defaults, two child processes and log level
warning. All of it is private and in a temporary folder.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from redis import Redis

from benchmarks.processes import PYTHON, Process, clean, free_port, stopping, until
from benchmarks.wire import Client

TASKS = "benchmarks.apps.celery_tasks"
JOBS = "/jobs"
# Without it a connection serves one request, as gunicorn's default worker does.
THREADS = ("-k", "gthread", "--threads", "8")


class Stack:
    """The processes of one baseline and their addresses."""

    def __init__(self, folder: Path, processes: list[Process]) -> None:
        self.folder = folder
        self.processes = processes
        self.port = free_port()
        self.redis_port = free_port()
        self.broker, self.results = self.url(0), self.url(1)
        self.more: dict[str, str] = {}  # what else its programs find in their environment

    def url(self, database: int) -> str:
        """Return the address of a database of this Redis."""
        return f"redis://127.0.0.1:{self.redis_port}/{database}"

    @property
    def environment(self) -> dict[str, str]:
        """Where the baseline's programs find broker and results."""
        return {"BASELINE_BROKER": self.broker, "BASELINE_RESULTS": self.results, **self.more}

    def redis(self) -> Process:
        """Start Redis; `answers_redis` says when it is there."""
        argv = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]  # fmt: skip
        return self.start("redis", *argv)

    def gunicorn(
        self, *options: str, name: str = "gunicorn", port: int = 0, server: str = "benchmarks.apps.flask_server:server"
    ) -> Process:
        """Start Flask with two workers."""
        bind = f"127.0.0.1:{port or self.port}"
        argv = ["gunicorn", "-w", "2", "-b", bind, "--log-level", "warning", *options]
        return self.start(name, PYTHON, "-m", *argv, server)

    def worker(self) -> Process:
        """Start Celery with two child processes."""
        return self.start("celery", PYTHON, "-m", "celery", "-A", TASKS, "worker", "-c", "2", "-l", "WARNING")

    def submit(self, count: int, python: str = PYTHON, module: str = TASKS) -> None:
        """Submit echo jobs from a program of its own."""
        environment = clean(self.environment)
        subprocess.run([python, "-m", module, str(count)], env=environment, cwd=self.folder, check=True)

    def keys(self, database: int) -> int:
        """Return how many keys a database of Redis holds."""
        with Redis.from_url(self.url(database)) as connection:
            return int(connection.dbsize())

    def start(self, name: str, *argv: str) -> Process:
        """Start a program with the addresses in its environment."""
        process = Process(name, argv, self.folder, self.environment)
        self.processes.append(process)
        return process

    def client(self) -> Client:
        """Return a client of Flask."""
        return Client(self.port)

    def redis_answers(self) -> bool:
        """Say whether Redis is there."""
        with contextlib.suppress(Exception), Redis.from_url(self.url(0)) as connection:
            return bool(connection.ping())
        return False


def listens(port: int) -> bool:
    """Say whether somebody listens."""
    with contextlib.suppress(OSError):
        Client(port).ask("GET", "/nothing")
        return True
    return False


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Give a baseline with Redis running, and end everything it started."""
    if shutil.which("redis-server") is None:
        raise SystemExit("The baselines need redis-server: run `make services`, or install it.")
    with tempfile.TemporaryDirectory(prefix="baseline-bench-") as folder, stopping([]) as processes:
        made = Stack(Path(folder), processes)
        made.redis()
        until(made.redis_answers, "Redis")
        yield made
