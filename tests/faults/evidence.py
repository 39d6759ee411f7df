"""What a run leaves behind outside the ledger, held against it: acknowledgements and executions.

`Evidence.violations` goes with `oracle.violations`: I1 and I2 with the right end and result, I4 (no attempt begins
twice), I5 (a job runs again only if it asked for it, or if what ran it was hurt), I6 (one live holder of a unique key),
that a submit which is repeated makes one job, and that a job whose cancel was acknowledged before it started never
runs. Read by run.py when everything has ended.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import text

from celeriac.ledger import Ledger
from faults.cast import Hurt

LOST = ("rescued", "given-back")  # events after which an attempt that had begun is begun again
LEASE_SECONDS = 5.0  # how long after an outage of the ledger a lease may lapse that nobody could renew, with a margin


@dataclass(frozen=True)
class Loss:
    """An attempt was taken from its worker; times as of `time.time()`."""

    at: float
    claimed_at: float
    pid: int | None  # the worker's process
    child_ended: bool  # its worker has seen the child end


@dataclass
class Evidence:
    """The files of a run, read."""

    acknowledged: list[dict[str, Any]]
    executions: dict[str, list[tuple[int, float]]]  # by job: (attempt, when it began)
    twice: int = 0  # attempts that ran although one before had begun and nobody asked for another
    explained: int = 0  # those of them whose forerunner was lost with its process, or with a worker that stood still
    cut_off: int = 0  # those of them whose worker could not renew its lease, for the ledger was in trouble
    ids: set[str] = field(default_factory=set)
    hurts: Sequence[Hurt] = ()
    outages: Sequence[tuple[float, float]] = ()  # of the ledger: from, until

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
            pids = {row.id: row.pid for row in connection.execute(text("SELECT id, pid FROM workers"))}
            rows = connection.execute(text("SELECT job, at, kind, data FROM events ORDER BY job, number"))
            asked: dict[int, set[int]] = defaultdict(set)
            losses: dict[int, dict[int, Loss]] = defaultdict(dict)
            claims: dict[int, tuple[float, str]] = {}
            for row in rows:
                data, at = json.loads(row.data or "{}"), row.at / 1e6
                if row.kind == "claimed":
                    claims[row.job] = (at, data["worker"])
                elif row.kind == "retrying":
                    asked[row.job].add(data.get("attempt"))
                elif row.kind in LOST and row.job in claims:
                    claimed_at, worker = claims[row.job]
                    losses[row.job][data.get("attempt")] = Loss(at, claimed_at, pids.get(worker), "ended" in data)
        wrong = list(self._ends(jobs))
        for id, job in jobs.items():
            wrong += self._runs(id, asked[job.key], losses[job.key])
        return [*wrong, *_unique(jobs.values()), *_once(jobs.values())]

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

    def _runs(self, id: str, asked: set[int], losses: dict[int, Loss]) -> Iterator[str]:
        began = Counter(attempt for attempt, _ in self.executions.get(id, ()))
        if any(times > 1 for times in began.values()):
            yield f"I4: {id} began an attempt twice: {began}"
        for attempt in sorted(began)[:-1]:
            if attempt in asked:
                continue
            self.twice += 1
            loss = losses.get(attempt)
            if loss is None:
                yield f"I5: {id} ran again after {attempt}, which was not lost"
            elif loss.child_ended or any(_explains(hurt, loss) for hurt in self.hurts):
                self.explained += 1
            elif any(began <= loss.at and loss.claimed_at <= over + LEASE_SECONDS for began, over in self.outages):
                self.cut_off += 1
            else:
                yield f"I5: {id} ran again after {attempt}, whose worker was well: {loss}"


def _explains(hurt: Hurt, loss: Loss) -> bool:
    return hurt.pid == loss.pid and hurt.at <= loss.at and loss.claimed_at <= hurt.until


def _once(jobs: Iterable[Any]) -> Iterator[str]:
    """Yield which submits have made several jobs; the load gives each a tag of its own, and repeats it with its key."""
    tags = Counter(tag for job in jobs for tag in json.loads(job.tags or "[]") if tag.startswith("once-"))
    yield from (f"key: one submit made {number} jobs, tagged {tag}" for tag, number in tags.items() if number > 1)


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
