"""`celeriac bench`: how fast an instance is here and now, with jobs that do nothing.

It starts an instance of its own and leaves nothing behind, or measures a running one. This client
is Python and shares the machine, so the figures are a floor, not a ceiling: `docs/benchmarks.md` has better ones.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from math import ceil
from threading import local
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from celeriac.cli.options import Server, json_option, server_options
from celeriac.cli.output import Column, notes, print_json, suggest, table
from celeriac.errors import CannotStart
from celeriac.jobs import new_id
from celeriac.states import State, is_final

if TYPE_CHECKING:
    from celeriac.client import Client

APP, TASK, ARGS = "celeriac.demo.tasks:app", "echo", {"value": None}
BATCH, LONE = 1000, 100
LOOK_SECONDS = 0.05


@click.command("bench")
@click.option("-n", "--jobs", type=click.IntRange(100, 1_000_000), default=2000, show_default=True, help="Jobs.")
@click.option("--clients", type=click.IntRange(1, 256), default=16, show_default=True, help="Submitting at once.")
@click.option("-c", "--concurrency", type=click.IntRange(1, 1000), default=2, show_default=True, help="Worker's slots.")
@click.option("--running", is_flag=True, help="Measure the server that runs here, or that of --url.")
@click.option("--task", default=TASK, show_default=True, help="What to run there; it is called without arguments.")
@json_option
@server_options
def command(
    jobs: int, clients: int, concurrency: int, running: bool, task: str, as_json: bool, server: Server
) -> None:  # fmt: skip
    """Measure submits, jobs a second and latency, on an instance of its own or a running one.

    With --running or --url the jobs stay in that server's list.
    """
    running = running or server.url is not None
    with _instance(server, concurrency, running) as client:
        figures = measure(client, task, ARGS if task == TASK else {}, jobs, clients, alone=not running)
    if as_json:
        print_json(figures)
        return
    names = {name: name.replace("_", " ") for name in figures}
    table([Column("", list(names.values())), Column("", [f"{value:,g}" for value in figures.values()])])
    suggest("celeriac bench --json", "for a script; docs/benchmarks.md compares with other systems")


@contextmanager
def _instance(server: Server, concurrency: int, running: bool) -> "Iterator[Client]":
    if running:
        yield server.client()
        return
    from celeriac.testing import instance

    notes().print("Starting an instance of its own…", style="dim")
    with instance(APP, concurrency=concurrency, log_level="WARNING") as client:
        yield client


def measure(client: "Client", task: str, args: Any, jobs: int, clients: int, *, alone: bool) -> dict[str, float]:
    """Submit jobs one by one from many threads, then in batches, then one after the other's end; return the figures.

    Where nobody else is served (`alone`) the queue is paused meanwhile, so that submits and jobs are measured apart.
    """
    from celeriac.client import submission

    queue = client.wait(client.submit(task, args)["id"], timeout=60)["queue"]  # everything is loaded and warm
    if alone:
        client.pause(queue)
    tag = f"bench-{new_id()}"

    single = submission(task, args, {"tags": [tag]})
    began = time.perf_counter()
    with _submitter(client, single) as submit, ThreadPoolExecutor(clients) as pool:
        took = sorted(pool.map(submit, range(jobs)))
    submitted = time.perf_counter() - began
    batch = [submission(task, args, {"tags": [f"{tag}-batch"]})] * min(BATCH, jobs)
    batches = ceil(jobs / len(batch))
    began = time.perf_counter()
    for _ in range(batches):
        client.submit_batch(batch)
    batched = time.perf_counter() - began
    if alone:
        client.resume(queue)
    began = time.perf_counter()
    _drained(client, tag)
    _drained(client, f"{tag}-batch")
    drained = time.perf_counter() - began
    lone = sorted(_lone(client, task, args) for _ in range(min(LONE, jobs)))
    return {
        "jobs": jobs,
        "clients": clients,
        "submits_per_second": round(jobs / submitted),
        "submit_p50_ms": _ms(took, 0.5),
        "submit_p99_ms": _ms(took, 0.99),
        "batch_submits_per_second": round(len(batch) * batches / batched),
        **({"jobs_per_second": round((jobs + batches * len(batch)) / drained)} if alone else {}),
        "alone_p50_ms": _ms(lone, 0.5),
        "alone_p99_ms": _ms(lone, 0.99),
    }


@contextmanager
def _submitter(client: "Client", job: dict[str, Any]) -> Iterator[Callable[[int], float]]:
    """Give what submits a job and says how long that took; a connection a thread, and little else to do."""
    own, parts, body = local(), urlsplit(client.base_url), json.dumps(job)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {**client.headers, "Content-Type": "application/json"}
    opened: list[http.client.HTTPConnection] = []

    def submit(_: int) -> float:
        if not hasattr(own, "connection"):
            own.connection = kind(parts.netloc, timeout=60)
            opened.append(own.connection)
        began = time.perf_counter()
        own.connection.request("POST", f"{parts.path}/api/v1/jobs", body, headers)
        answer = own.connection.getresponse()
        told = answer.read()
        if answer.status != 202:
            raise CannotStart(f"The server answered a submit with {answer.status}: {told.decode(errors='replace')}")
        return time.perf_counter() - began

    yield submit
    for connection in opened:
        connection.close()


def _drained(client: "Client", tag: str) -> None:
    """Wait until no job of a tag is left to run."""
    open_states = ",".join(state for state in State if not is_final(state))
    while next(client.jobs(tag=tag, state=open_states, limit=1), None) is not None:
        time.sleep(LOOK_SECONDS)


def _lone(client: "Client", task: str, args: Any) -> float:
    """Return how long a job takes on a server that has nothing else to do, from its acceptance to its end."""
    job = client.wait(client.submit(task, args)["id"], timeout=60)
    ended, began = (datetime.fromisoformat(job[name]) for name in ("finished_at", "created_at"))
    return (ended - began).total_seconds()


def _ms(sorted_seconds: list[float], share: float) -> float:
    return round(1000 * sorted_seconds[min(int(share * len(sorted_seconds)), len(sorted_seconds) - 1)], 2)
