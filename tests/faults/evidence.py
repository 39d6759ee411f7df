"""What a run leaves behind outside the ledger, held against it: acknowledgements and executions.

`Evidence.violations` goes with `oracle.violations`: I1 and I2 with the right end and result, I4 (no attempt begins
twice), I5 (a job runs again only if an attempt was lost or asked for it), I6 (one live holder of a unique key), and
that a job whose cancel was acknowledged before it started never does. Read by run.py when everything has ended.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import text

from celeriac.ledger import Ledger

LOST = ("rescued", "given-back")  # events after which an attempt that had begun is begun again


@dataclass
class Evidence:
    """The files of a run, read."""

    acknowledged: list[dict[str, Any]]
    executions: dict[str, list[tuple[int, float]]]  # by job: (attempt, when it began)
    twice: int = 0  # attempts that ran although one before had begun and nobody asked for another
    explained: int = 0  # those of them whose forerunner was lost with its process
    ids: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, home: Path) -> "Evidence":
        """Read what the load and the tasks of a home have noted."""
        executions = defaultdict(list)
        for line in _lines(home / "executions"):
            id, attempt, at = line.split()
            executions[id].append((int(attempt), float(at)))
        acknowledged = [json.loads(line) for line in _lines(home / "acknowledged")]
        ids = {id for line in acknowledged for id in line.get("ends", ())}
        return cls(acknowledged, dict(executions), ids=ids)

    def violations(self, ledger: Ledger) -> list[str]:
        """Return what does not hold, one sentence each."""
        with ledger.reading() as connection:
            jobs = {job.id: job for job in connection.execute(text("SELECT * FROM jobs"))}
            rows = connection.execute(text("SELECT job, kind, data FROM events ORDER BY job, number"))
            told: dict[int, list[tuple[str, int | None]]] = defaultdict(list)
            for row in rows:
                told[row.job].append((row.kind, json.loads(row.data or "{}").get("attempt")))
        wrong = list(self._ends(jobs))
        for id, job in jobs.items():
            wrong += self._runs(id, told[job.key])
        return wrong + list(_unique(jobs.values()))

    def _ends(self, jobs: dict[str, Any]) -> Iterator[str]:
        for line in self.acknowledged:
            if "wrong" in line:
                yield f"{line['kind']}: {line['wrong']}"
            for id, (states, *result) in line.get("ends", {}).items():
                job = jobs.get(id)
                if job is None:
                    yield f"I1: {line['kind']} {id} was acknowledged and is gone"
                elif job.state not in states.split("|"):
                    yield f"I2: {line['kind']} {id} is {job.state} ({job.error_code}: {job.error_message})"
                elif result and json.loads(job.result) != result[0]:
                    yield f"I2: {line['kind']} {id} came to {job.result}, not {result[0]}"
                if line["never_runs"] and id in self.executions:
                    yield f"cancel: {id} ran although its cancel was acknowledged before"

    def _runs(self, id: str, events: list[tuple[str, int | None]]) -> Iterator[str]:
        began = Counter(attempt for attempt, _ in self.executions.get(id, ()))
        if any(times > 1 for times in began.values()):
            yield f"I4: {id} began an attempt twice: {began}"
        asked = {attempt for kind, attempt in events if kind == "retrying"}
        lost = {attempt for kind, attempt in events if kind in LOST}
        again = [attempt for attempt in sorted(began)[:-1] if attempt not in asked]
        self.twice += len(again)
        self.explained += len(lost.intersection(again))
        if not lost.issuperset(again):
            yield f"I5: {id} ran again after {again}, of which only {lost} were lost"


def _unique(jobs: Iterable[Any]) -> Iterator[str]:
    """Yield whose lives overlapped although they hold the same unique key (the load tags them with it)."""
    holders = defaultdict(list)
    for job in jobs:
        for tag in json.loads(job.tags or "[]"):
            if tag.startswith("unique-"):
                holders[tag].append((job.created_at, job.finished_at or float("inf"), job.id))
    for tag, lives in holders.items():
        lives.sort()
        for (_, ended, one), (began, _, other) in pairwise(lives):
            if began < ended:
                yield f"I6: {one} and {other} held {tag} at the same time"


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a file; a process that was killed may have left half of the last one."""
    if not path.exists():
        return []
    *lines, _rest = path.read_text("utf-8").split("\n")
    return lines
