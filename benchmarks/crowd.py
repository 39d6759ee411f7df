"""Crowd: everybody at once. 150 submits in the same moment, ten readers of lists all the while, then 10,000 jobs.

There is no baseline: the question is whether anybody is ever told that the database is locked.
Every answer and every log of the demo is searched for it, and every job has to succeed.
"""

import time
from pathlib import Path

from benchmarks import instance
from benchmarks.instance import JOBS, Instance
from benchmarks.load import Load, Running, drive
from benchmarks.processes import until
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import Client, request

TITLE = "150 submits at once, 10 readers of lists meanwhile, then 10,000 jobs, on the demo"
CROWD = 150
MEASURES = [
    Measure("accepted", f"{CROWD} accepted after", "s"),
    Measure("visible", f"all {CROWD} in the list, after the first", "s"),
    Measure("ended", f"all {CROWD} succeeded, after the first in the list", "s"),
    Measure("rate", "then: accepted", "per s", more=True),
    Measure("p99", "then: submit, p99", "ms"),
    Measure("drained", "then: submitted and succeeded", "jobs per s", more=True),
    Measure("reads", "lists read meanwhile", "per s", more=True),
    Measure("reads_p50", "reading a list, p50", "ms"),
    Measure("reads_p99", "reading a list, p99", "ms"),
    Measure("failed", "answers other than 200 and 202", goal="0"),
    Measure("locked", "answers and log lines with “locked”", goal="0"),
    Measure("lost", "jobs that did not succeed", goal="0"),
]


def run(quick: bool) -> Result:
    """Measure a demo of its own in each round."""
    jobs = 2_000 if quick else 10_000
    samples = alternate({"Celeriac demo": lambda: _measure(jobs)}, 1 if quick else 3)
    return Result("crowd", TITLE, MEASURES, samples, [f"{jobs:,} jobs, submitted by 64 clients."])


def _measure(jobs: int) -> Sample:
    with instance.instance(set_up=False) as ours:
        demo = ours.start("demo", "demo")
        until(lambda: ours.answers(demo) and (ours.home / "token").exists(), "the demo")
        ours.token = (ours.home / "token").read_text().strip()
        client = ours.client()
        until(lambda: len(_online(client)) == 2, "the demo's workers")
        readers = Running(ours.port, _lists(ours), 10)
        sample, crowd = _crowd(ours, client)
        more, lot = _drain(ours, client, jobs)
        read = readers.end()
        loads = [crowd, lot, read]
        return {
            **sample,
            **more,
            "reads": read.rate,
            "reads_p50": read.p50,
            "reads_p99": read.p99,
            "failed": sum(_failed(load) for load in loads),
            "locked": sum(load.locked for load in loads) + _locked(ours.home),
            "lost": CROWD + jobs - _succeeded(client),
        }


def _lists(ours: Instance) -> list[bytes]:
    paths = [f"{JOBS}?limit=50", f"{JOBS}?state=running,queued", f"{JOBS}?tag=crowd&limit=100", f"{JOBS}?task=echo",
             "/api/v1/queues"]  # fmt: skip
    return [request("GET", path, token=ours.token) for path in paths]


def _crowd(ours: Instance, client: Client) -> tuple[Sample, Load]:
    body = {"task": "echo", "args": {"value": 1}, "tags": ["crowd"]}
    began = time.monotonic()
    running = Running(ours.port, [request("POST", JOBS, body, ours.token)], CROWD, most=CROWD)
    first = until(lambda: _tagged(client), "the first of the crowd", pause=0)
    visible = until(lambda: len(_tagged(client)) == CROWD, "the crowd in the list", pause=0)
    until(lambda: all(job["state"] == "succeeded" for job in _tagged(client)), "the crowd's end")
    ended = time.monotonic() - began - first
    load = running.end()
    return {"accepted": load.seconds, "visible": visible, "ended": ended}, load


def _drain(ours: Instance, client: Client, jobs: int) -> tuple[Sample, Load]:
    post = request("POST", JOBS, {"task": "echo", "args": {"value": 1}}, ours.token)
    began = time.monotonic()
    load = drive(ours.port, [post], 64, most=jobs)
    until(lambda: not _open(client), "every job's end", seconds=300, pause=0.05)
    return {"rate": load.rate, "p99": load.p99, "drained": jobs / (time.monotonic() - began)}, load


def _online(client: Client) -> list[object]:
    return [worker for worker in client.ask("GET", "/api/v1/workers").json()["workers"] if worker["online"]]


def _tagged(client: Client) -> list[dict[str, str]]:
    jobs: list[dict[str, str]] = client.ask("GET", f"{JOBS}?tag=crowd&limit=200").json()["jobs"]
    return jobs


def _counts(client: Client) -> dict[str, int]:
    counts: dict[str, int] = {}
    for queue in client.ask("GET", "/api/v1/queues").json()["queues"]:
        for state, jobs in queue["counts"].items():
            counts[state] = counts.get(state, 0) + jobs
    return counts


def _open(client: Client) -> int:
    return sum(jobs for state, jobs in _counts(client).items() if state not in ("succeeded", "failed", "cancelled"))


def _succeeded(client: Client) -> int:
    return _counts(client).get("succeeded", 0)


def _failed(load: Load) -> int:
    good = load.statuses.get("200", 0) + load.statuses.get("202", 0)
    return load.answers - good + load.broken


def _locked(home: Path) -> int:
    logs = [path for path in home.rglob("*") if path.is_file() and "log" in path.name]
    return sum(path.read_text(errors="replace").count("locked") for path in logs)
