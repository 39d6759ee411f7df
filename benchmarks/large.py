"""Large: two texts of a million characters over HTTP through the demo's `lcs`.

The baseline carries the same arguments through Redis to the same function in a Celery worker.
"""

import random
import time
from collections.abc import Callable
from datetime import datetime

from benchmarks import instance, stack
from benchmarks.processes import cpu, until
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import Client

TITLE = "the longest common substring of two texts of 1,000,000 characters"
LENGTH = 1_000_000
COMMON = 5_000
MEASURES = [
    Measure("submit", "submit", "s"),
    Measure("compute", "started to finished", "s", goal="2"),
    Measure("whole", "submit to result at the client", "s"),
    Measure("cpu", "CPU of all processes", "s"),
]


def run(quick: bool) -> Result:
    """Measure Celeriac and the baseline."""
    body = {"task": "lcs", "args": _texts()}
    with instance.instance() as ours, stack.stack() as theirs:
        ours.web()
        ours.worker("large", 1)
        ours.start("keeper", "keeper")
        theirs.gunicorn()
        theirs.worker()
        until(lambda: stack.listens(theirs.port), "gunicorn")

        def celeriac() -> Sample:
            return _measure(ours.client(), instance.JOBS, body, lambda: cpu(ours.processes))

        def celery() -> Sample:
            return _measure(theirs.client(), stack.JOBS, body, lambda: cpu(theirs.processes))

        small = {"task": "lcs", "args": {"a": "banana" * 300, "b": "ananas"}}
        _ask(ours.client(), instance.JOBS, small)
        _ask(theirs.client(), stack.JOBS, small)
        samples = alternate({"Celeriac": celeriac, "Flask + Celery": celery}, 2 if quick else 5)
    return Result("large", TITLE, MEASURES, samples, ["Half DNA, half words; they share a piece of 5,000 characters."])


def _texts() -> dict[str, str]:
    """Return two texts of which one piece is common and known."""
    dice = random.Random(150)
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(2_000)]
    common = "".join(dice.choices("xyz", k=COMMON))

    def text(place: int) -> str:
        half = LENGTH // 2
        made = "".join(dice.choices("ACGT", k=half)) + " ".join(dice.choices(words, k=half))[:half]
        return made[:place] + common + made[place + COMMON :]

    return {"a": text(123_456), "b": text(765_432)}


def _ask(client: Client, path: str, body: object) -> tuple[float, float, dict[str, object]]:
    began = time.perf_counter()
    accepted = client.ask("POST", path, body)
    submit = time.perf_counter() - began
    if accepted.status != 202:
        raise RuntimeError(f"Not accepted: {accepted.status} {accepted.body[:300]!r}")
    ended: dict[str, object] = client.ask("GET", f"{path}/{accepted.json()['id']}?wait=30").json()
    return submit, time.perf_counter() - began, ended


def _measure(client: Client, path: str, body: object, used: Callable[[], float]) -> Sample:
    before = used()
    submit, whole, job = _ask(client, path, body)
    result = job["result"]
    if not isinstance(result, dict) or result["length"] != COMMON or result["a_at"] != 123_456:
        raise RuntimeError(f"A wrong result: {str(job)[:300]}")
    sample = {"submit": submit, "whole": whole, "cpu": used() - before}
    if "started_at" in job:
        took = _moment(job["finished_at"]) - _moment(job["started_at"])
        sample["compute"] = took.total_seconds()
    client.close()
    return sample


def _moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text))
