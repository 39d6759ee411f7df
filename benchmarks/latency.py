"""Latency: one client submits a job and waits for its result, on an idle instance, again and again.

Two requests on both sides: a POST, then a GET that waits. Celeriac runs whole (web, worker,
keeper), the baseline is Flask, Redis and a Celery worker.
"""

import time
from collections.abc import Callable

from benchmarks import instance, stack
from benchmarks.processes import cpu, until
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import Client

TITLE = "from submit to result at one client, idle: POST, then GET that waits"
BODY = {"task": "echo", "args": {"value": 1}}
MEASURES = [
    Measure("p50", "p50", "ms", goal="10"),
    Measure("p99", "p99", "ms", goal="25"),
    Measure("max", "slowest", "ms"),
    Measure("post", "POST alone, p50", "ms"),
    Measure("cpu", "CPU of all processes", "µs per job"),
]


def run(quick: bool) -> Result:
    """Measure Celeriac and the baseline."""
    jobs = 100 if quick else 300
    with instance.instance() as ours, stack.stack() as theirs:
        ours.web()
        ours.worker()
        ours.start("keeper", "keeper")
        theirs.gunicorn()
        theirs.worker()
        until(lambda: stack.listens(theirs.port), "gunicorn")

        def celeriac(jobs: int = jobs) -> Sample:
            return _measure(ours.client(), instance.JOBS, jobs, lambda: cpu(ours.processes))

        def celery(jobs: int = jobs) -> Sample:
            return _measure(theirs.client(), stack.JOBS, jobs, lambda: cpu(theirs.processes))

        celeriac(50)
        celery(50)
        samples = alternate({"Celeriac": celeriac, "Flask + Celery": celery}, 2 if quick else 5)
    return Result("latency", TITLE, MEASURES, samples, [f"{jobs} jobs one after the other in each round."])


def _measure(client: Client, path: str, jobs: int, used: Callable[[], float]) -> Sample:
    took, posts = [], []
    before = used()
    for _ in range(jobs):
        began = time.perf_counter()
        accepted = client.ask("POST", path, BODY)
        posts.append(time.perf_counter() - began)
        ended = client.ask("GET", f"{path}/{accepted.json()['id']}?wait=30")
        took.append(time.perf_counter() - began)
        if accepted.status != 202 or ended.json()["result"] != 1:
            raise RuntimeError(f"A job without its result: {accepted}, {ended}")
    cpu_seconds = used() - before
    client.close()
    took.sort()
    posts.sort()
    return {
        "p50": 1000 * took[jobs // 2],
        "p99": 1000 * took[jobs * 99 // 100],
        "max": 1000 * took[-1],
        "post": 1000 * posts[jobs // 2],
        "cpu": 1e6 * cpu_seconds / jobs,
    }
