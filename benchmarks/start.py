"""Start: how soon everything runs, how much memory it takes, and what it costs when there is nothing to do.

`celeriac demo` on a set-up machine with an empty home (web, keeper, two worker nodes with three
child processes) against Redis, gunicorn and one Celery worker, started together.
"""

import contextlib
import time
from collections.abc import Callable

from benchmarks import instance, stack
from benchmarks.processes import Process, cpu, memory, until
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import Client

TITLE = "celeriac demo with an empty home, against Redis, gunicorn -w 2 and a Celery worker"
BODY = {"task": "echo", "args": {"value": 1}}
MEASURES = [
    Measure("submit", "first submit accepted after", "s"),
    Measure("first", "first job finished after", "s", goal="6"),
    Measure("start_cpu", "CPU until then", "s"),
    Measure("processes", "processes"),
    Measure("pss", "memory, PSS (shared pages once)", "MB", goal="350"),
    Measure("rss", "memory, RSS (shared pages often)", "MB", goal="350"),
    Measure("idle", "CPU when idle", "% of a core", goal="3"),
]
SETTLE_SECONDS = 5


def run(quick: bool) -> Result:
    """Measure the demo and the baseline."""
    idle_seconds = 5 if quick else 20
    sides: dict[str, Callable[[], Sample]] = {
        "Celeriac demo": lambda: _demo(idle_seconds),
        "Flask + Celery": lambda: _baseline(idle_seconds),
    }
    notes = [f"Idle: {idle_seconds} s, beginning {SETTLE_SECONDS} s after the first job."]
    return Result("start", TITLE, MEASURES, alternate(sides, 2 if quick else 3), notes)


def _demo(idle_seconds: float) -> Sample:
    with instance.instance(set_up=False) as ours:
        began = time.monotonic()
        ours.start("demo", "demo")
        token = ours.home / "token"
        until(lambda: token.exists() and token.read_text().strip(), "the demo's token", pause=0.01)
        ours.token = token.read_text().strip()
        return _measure(began, ours.client(), instance.JOBS, ours.processes, idle_seconds)


def _baseline(idle_seconds: float) -> Sample:
    with stack.stack() as theirs:
        for process in theirs.processes:  # the one `stack` waits for; here they start together
            process.stop()
        theirs.processes.clear()
        began = time.monotonic()
        theirs.redis()
        theirs.gunicorn()
        theirs.worker()
        return _measure(began, theirs.client(), stack.JOBS, theirs.processes, idle_seconds)


def _measure(began: float, client: Client, path: str, processes: list[Process], idle_seconds: float) -> Sample:
    accepted: list[str] = []

    def submitted() -> bool:
        for process in processes:
            process.check()
        with contextlib.suppress(OSError):
            answer = client.ask("POST", path, BODY)
            if answer.status == 202:
                accepted.append(answer.json()["id"])
        return bool(accepted)

    until(submitted, "the first submit", pause=0.01)
    submit = time.monotonic() - began
    if client.ask("GET", f"{path}/{accepted[0]}?wait=30").json()["result"] != 1:
        raise RuntimeError("The first job has no result.")
    first, start_cpu = time.monotonic() - began, cpu(processes)
    client.close()
    time.sleep(SETTLE_SECONDS)
    before = cpu(processes)
    time.sleep(idle_seconds)
    idle = 100 * (cpu(processes) - before) / idle_seconds
    return {"submit": submit, "first": first, "start_cpu": start_cpu, "idle": idle, **memory(processes)}
