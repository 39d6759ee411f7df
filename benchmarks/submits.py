"""Submits: how many jobs a second one web process accepts over HTTP, and at what CPU.

Celeriac answers after the row is committed and synced to disk; Celery's `.delay()` answers when
Redis has the message in memory. No worker runs on either side.
"""

from collections.abc import Callable, Sequence

from benchmarks import instance, machine, stack
from benchmarks.load import drive
from benchmarks.processes import Process, cpu, free_port, until
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import request

TITLE = "HTTP submits, one web process (durable) against Flask, gunicorn -w 2 and .delay() on Redis (not durable)"
BODY = {"task": "echo", "args": {"value": 1}}
CLIENTS = (1, 16, 64)


def run(quick: bool) -> Result:
    """Measure Celeriac, Flask with gunicorn's sync workers, and the same with its threads."""
    seconds = 2.0 if quick else 4.0
    with instance.instance() as ours, stack.stack() as theirs:
        web = ours.web()
        sync = theirs.gunicorn()
        threads_port = free_port()
        threads = theirs.gunicorn(*stack.THREADS, name="gthread", port=threads_port)
        until(lambda: stack.listens(theirs.port) and stack.listens(threads_port), "gunicorn")
        redis = theirs.processes[0]
        post = request("POST", stack.JOBS, BODY)
        sides = {
            "Celeriac": _side(ours.port, request("POST", instance.JOBS, BODY, ours.token), [web], seconds),
            "Flask sync": _side(theirs.port, post, [sync, redis], seconds),
            "Flask gthread": _side(threads_port, post, [threads, redis], seconds),
        }
        samples = alternate(sides, 2 if quick else 5)
    return Result("submits", TITLE, _measures(), samples, ["CPU counts the web server's processes and Redis."])


def _side(port: int, post: bytes, processes: Sequence[Process], seconds: float) -> Callable[[], Sample]:
    def measure() -> Sample:
        sample = {}
        for clients in CLIENTS:
            drive(port, [post], clients, seconds=0.7)
            used, busy = cpu(processes), machine.busy()
            load = drive(port, [post], clients, seconds=seconds).expect(202)
            used, busy = cpu(processes) - used, machine.busy() - busy
            sample |= {
                f"rate{clients}": load.rate,
                f"cpu{clients}": 1e6 * used / load.answers,
                f"p50{clients}": load.p50,
                f"p99{clients}": load.p99,
                f"generator{clients}": 100 * load.cpu / load.seconds,
                f"others{clients}": max(0.0, 100 * (busy - used - load.cpu) / load.seconds),
            }
        return sample

    return measure


def _measures() -> list[Measure]:
    measures = []
    for clients in CLIENTS:
        who = f"{clients} clients" if clients > 1 else "1 client"
        goal = "at least 3 times, aim 6" if clients > 1 else ""
        measures += [
            Measure(f"rate{clients}", f"{who}: accepted", "per s", more=True, goal=goal),
            Measure(f"cpu{clients}", f"{who}: server CPU", "µs per submit"),
            Measure(f"p50{clients}", f"{who}: p50", "ms"),
            Measure(f"p99{clients}", f"{who}: p99", "ms"),
            Measure(f"generator{clients}", f"{who}: generator's CPU", "% of a core"),
            Measure(f"others{clients}", f"{who}: CPU of everybody else", "% of a core"),
        ]
    return measures
