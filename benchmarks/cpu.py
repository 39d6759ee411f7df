"""CPU: what a no-op job costs the worker and its database, with its result kept.

A warm worker with two processes drains a full queue; everybody logs warnings only. Celeriac records
every claim, start and end in SQLite, synced to disk; the baselines keep the result.
"""

import contextlib
import time
from collections.abc import Callable

from benchmarks import engines
from benchmarks.engines import Engine
from benchmarks.processes import until
from benchmarks.rounds import Measure, Result, Sample, alternate

TITLE = "a drain of no-op jobs by one worker, two at a time, everything recorded"
MEASURES = [
    Measure("cpu", "CPU, worker and database", "µs per job", goal="at most 1,200, aim 700"),
    Measure("worker", "of this: worker", "µs per job"),
    Measure("database", "of this: Redis", "µs per job"),
    Measure("rate", "drained", "jobs per s", more=True),
    Measure("commits", "commits", "per job"),
]
WARM = 300
Open = Callable[[], contextlib.AbstractContextManager[Engine]]


def run(quick: bool) -> Result:
    """Measure Celeriac, Celery with two kinds of result backend, and dramatiq if it can be had."""
    jobs = 2_000 if quick else 10_000
    notes = [f"{jobs:,} jobs in each round. Celeriac's SQLite is inside its worker."]
    with engines.python_with_dramatiq() as python:
        opens: dict[str, Open] = {
            "Celeriac": engines.celeriac,
            "Celery, Redis": engines.celery_redis,
            "Celery, SQLite": engines.celery_sqlite,
        }
        if python:
            opens["dramatiq, Redis"] = lambda: engines.dramatiq(python)
        else:
            notes.append("dramatiq was left out: it could not be installed from the package index.")
        sides = {name: side(open, jobs) for name, open in opens.items()}
        samples = alternate(sides, 2 if quick else 3)
    return Result("cpu", TITLE, MEASURES, samples, notes)


def side(open: Open, jobs: int) -> Callable[[], Sample]:
    """Return a round: fill the queue of a warm, stopped worker, and let it drain."""

    def measure() -> Sample:
        with open() as engine:
            engine.submit(WARM)
            until(lambda: engine.ended() >= WARM, "the first jobs")
            time.sleep(0.5)
            engine.worker.pause()
            engine.submit(jobs)
            engine.filled()
            return _drain(engine, jobs)

    return measure


def _drain(engine: Engine, jobs: int) -> Sample:
    worker, database, commits = _used(engine)
    engine.worker.resume()
    seconds = until(lambda: engine.ended() >= WARM + jobs, f"{jobs} jobs", seconds=300, pause=0.05)
    time.sleep(0.2)  # what is written after the last result belongs to the jobs, too
    worker_after, database_after, commits_after = _used(engine)
    worker, database = worker_after - worker, database_after - database
    sample = {
        "cpu": 1e6 * (worker + database) / jobs,
        "worker": 1e6 * worker / jobs,
        "rate": jobs / seconds,
    }
    if engine.database:
        sample["database"] = 1e6 * database / jobs
    if engine.commits:
        sample["commits"] = (commits_after - commits) / jobs
    return sample


def _used(engine: Engine) -> tuple[float, float, int]:
    return (
        engine.worker.cpu(),
        engine.database.cpu() if engine.database else 0.0,
        engine.commits() if engine.commits else 0,
    )
