"""Brokers: Postgres with RabbitMQ beside it, against plain Celery on RabbitMQ, and against a durable submit by hand.

Three parts in each round: a drain of no-op jobs by one worker (as `postgres`); how long a job takes to begin at a
steady 200 a second, a fifth of what plain Celery drains here; and HTTP submits by 64 clients that are on disk and
confirmed when they are answered.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from benchmarks import cpu, instance, postgres, rabbitmq, stack
from benchmarks.engines import BODY, Engine
from benchmarks.load import drive
from benchmarks.processes import PYTHON, Process, until
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import request

TITLE = "Postgres and RabbitMQ, everything recorded, against what is built with Celery on RabbitMQ"
MEASURES = [
    Measure("cpu", "CPU, worker and servers", "µs per job", goal="at most 1,000"),
    Measure("worker", "of this: worker", "µs per job"),
    Measure("database", "of this: servers", "µs per job"),
    Measure("rate", "drained", "jobs per s", more=True, goal="Redis results 1.3 times, aim 2; database 3, aim 5"),
    Measure("commits", "transactions that wrote", "per job", goal="at most 0.1"),
    Measure("start50", "submit to start, 200 jobs per s, p50", "ms", goal="at most 1.5 times Celery's"),
    Measure("start95", "submit to start, 200 jobs per s, p95", "ms"),
    Measure("submits", "durable HTTP submits, 64 clients", "per s", more=True, goal="4 times"),
]
PACED = "benchmarks.apps.paced"
RATE = 200.0
CLIENTS = 64


@contextlib.contextmanager
def ours(app: str = instance.APP) -> Iterator[tuple[instance.Instance, postgres.Postgres, Process, Process]]:
    """Give an instance on Postgres and RabbitMQ."""
    with (
        postgres.server() as (database, process), rabbitmq.server() as (url, node),
        instance.instance(
            CELERIAC_DATABASE_URL=database.url, CELERIAC_BROKER_URL=url, CELERIAC_LOG_LEVEL="WARNING", CELERIAC_APP=app,
        ) as made,
    ):  # fmt: skip
        yield made, database, process, node


@contextlib.contextmanager
def celeriac() -> Iterator[Engine]:
    """Give a worker of ours."""
    with ours() as (made, database, process, node):
        web, worker = made.web(), made.worker()
        made.start("keeper", "keeper")
        post = request("POST", instance.JOBS, BODY, made.token)
        yield Engine(
            worker, postgres.Servers(database, process, node),
            lambda jobs: drive(made.port, [post], 16, most=jobs).expect(202),
            lambda: database.ask("SELECT count(*) FROM jobs WHERE state = 'succeeded'"), lambda: made.stop(web),
            database.transactions,
        )  # fmt: skip


@contextlib.contextmanager
def celery_redis() -> Iterator[Engine]:
    """Give a plain Celery worker on RabbitMQ that acknowledges late, with its results in Redis."""
    with rabbitmq.server() as (url, node), stack.stack() as theirs:
        theirs.broker = url
        yield Engine(theirs.worker(), _Both(node, theirs.processes[0]), theirs.submit, lambda: theirs.keys(1))


@contextlib.contextmanager
def celery_postgres() -> Iterator[Engine]:
    """Give the same with its results in Postgres."""
    with rabbitmq.server() as (url, node), postgres.celery_on(url, node) as engine:
        yield engine


class _Both(Process):
    """Two servers: their CPU together."""

    def __init__(self, *servers: Process) -> None:
        self._servers = servers

    def cpu(self) -> float:
        """Return the CPU seconds of both."""
        return sum(server.cpu() for server in self._servers)


def run(quick: bool) -> Result:
    """Measure all three sides."""
    jobs, seconds = (2_000, 3.0) if quick else (10_000, 6.0)
    sides: dict[str, Callable[[], Sample]] = {
        "Celeriac": lambda: cpu.side(celeriac, jobs)() | _start_ours(seconds) | _submits_ours(seconds),
        "Celery, Redis results": lambda: cpu.side(celery_redis, jobs)() | _start_theirs(seconds),
        "Celery, Postgres results": cpu.side(celery_postgres, jobs),
        "Flask: a commit and a confirmation": lambda: _submits_theirs(seconds),
    }
    notes = [f"{jobs:,} jobs in each drain. Celery acknowledges late. Each process of the last side has 32 threads."]
    return Result("brokers", TITLE, MEASURES, alternate(sides, 2 if quick else 3), notes)


def _start_ours(seconds: float) -> Sample:
    with ours(f"{PACED}:app") as (made, _, _, _):
        made.environment["LATENCIES"] = str(made.home / "latencies")
        made.start("keeper", "keeper")
        made.start("paced", "worker", f"{PACED}:app", "-Q", "small", "-c", "2", "-n", "paced")
        return _paced(made.home, made.start_python, seconds)


def _start_theirs(seconds: float) -> Sample:
    with rabbitmq.server() as (url, _), stack.stack() as theirs:
        theirs.broker = url
        theirs.more["LATENCIES"] = str(theirs.folder / "latencies")
        theirs.start("celery", PYTHON, "-m", "celery", "-A", PACED, "worker", "-c", "2", "-l", "WARNING", "-Q", "small")
        return _paced(theirs.folder, theirs.start, seconds)


def _paced(folder: Path, start: Callable[..., Process], seconds: float) -> Sample:
    """Submit at a steady pace and return how long jobs took to begin, behind one that waits for the worker's start.

    The first second is not counted.
    """
    file, count = folder / "latencies", int((seconds + 1) * RATE)
    for submitter, jobs, begun in (("first", 1, 1), ("submitter", count, count + 1)):
        start(submitter, PYTHON, "-m", PACED, str(jobs), str(RATE))
        until(lambda begun=begun: file.exists() and file.read_bytes().count(b"\n") >= begun, "the jobs to begin")
    took = sorted(1000 * float(line) for line in file.read_text().split()[int(RATE) + 1 :])
    return {"start50": took[len(took) // 2], "start95": took[len(took) * 95 // 100]}


def _submits_ours(seconds: float) -> Sample:
    with ours() as (made, _, _, _):
        made.web()
        post = request("POST", instance.JOBS, BODY, made.token)
        drive(made.port, [post], CLIENTS, seconds=1)
        return {"submits": drive(made.port, [post], CLIENTS, seconds=seconds).expect(202).rate}


def _submits_theirs(seconds: float) -> Sample:
    with postgres.server() as (database, _), rabbitmq.server() as (url, _), stack.stack() as theirs:
        with psycopg.connect(database.url) as connection:
            connection.execute("CREATE TABLE jobs (id text PRIMARY KEY, body text, state text)")
        theirs.broker = url
        theirs.more["BASELINE_ROWS"] = database.url
        theirs.gunicorn("-k", "gthread", "--threads", "32", server="benchmarks.apps.durable_server:server")
        until(lambda: stack.listens(theirs.port), "gunicorn")
        post = request("POST", stack.JOBS, BODY)
        drive(theirs.port, [post], CLIENTS, seconds=1)
        return {"submits": drive(theirs.port, [post], CLIENTS, seconds=seconds).expect(202).rate}
