"""Claim: a worker node takes the best jobs of a queue, and only the claim's holder may end them.

The best have the highest priority; among those owners take turns, and of an owner the oldest comes first. So nobody's
thousands hold up others, and what a node may not take is stepped over, however much of it waits (docs/decisions/
0007-claim.md). Each claim raises `attempt`, the fencing token of everything the worker writes later. What is not
queued, expired, paused or of an unknown task is left alone. Next: finish.py.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from celeriac import clock
from celeriac.jobs import Claimed, ClaimRequest, Kind, Message
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State

HIGHEST = 32_767  # of all priorities
OWNERS = 16  # looked at at a time, beyond those that are needed
WINDOWS = 8  # of so many owners, before a claim gives up

READY = "n.state = 'queued' AND n.observed = 0 AND n.queue = :queue"
SAME = "n.priority = j.priority AND n.task = j.task"
BEST = "n.priority DESC, n.task, n.owner, n.key"


def _first(order: str, where: str = "true") -> str:
    return f"(SELECT n.key FROM jobs AS n {{by[jobs_waiting]}} WHERE {READY} AND {where} ORDER BY {order} LIMIT 1)"


# The two ends of the queue: mostly all that waits there is of one priority, task and owner.
_ENDS = Sql(
    "SELECT priority, task, owner FROM jobs {by_key} WHERE key IN ("
    f"{_first(BEST)}, {_first('n.priority, n.task DESC, n.owner DESC, n.key DESC')})"
    " AND NOT EXISTS (SELECT 1 FROM queues WHERE name = :queue AND paused_at IS NOT NULL)"
)
# An owner between an owner and the same: were it one, Postgres might as well find it in the order of all keys, and
# would walk past every job there is to the first that waits (19 ms instead of 0.5 behind 8,000 jobs).
_GROUPS = Sql(
    # The first job of each task, in the best priority that has one of the tasks asked for.
    f"WITH RECURSIVE kinds(key, found) AS (SELECT {_first(BEST, 'n.priority <= :best')}, 0"
    f" UNION ALL SELECT COALESCE({_first('n.task, n.owner, n.key', 'n.priority = j.priority AND n.task > j.task')},"
    f" CASE WHEN found = 0 AND j.task NOT IN ({{each}}) THEN {_first(BEST, 'n.priority < j.priority')} END),"
    " CASE WHEN j.task IN ({each}) THEN 1 ELSE found END FROM kinds JOIN jobs AS j ON j.key = kinds.key),"
    # The first job of each of their owners, in the order of their names, from one name on.
    f" heads(key, place) AS (SELECT {_first('n.owner, n.key', f'{SAME} AND n.owner > :after')}, 1"
    " FROM kinds JOIN jobs AS j ON j.key = kinds.key WHERE j.task IN ({each})"
    f" UNION ALL SELECT {_first('n.owner, n.key', f'{SAME} AND n.owner > j.owner')}, place + 1"
    " FROM heads JOIN jobs AS j ON j.key = heads.key WHERE place < :owners),"
    " parts AS (SELECT j.priority, j.task, j.owner, place FROM heads JOIN jobs AS j ON j.key = heads.key)"
    # Of each as many as might be taken (none: they have expired), and whether there is anything below.
    " SELECT p.priority, p.task, p.owner, p.place, k.value AS key,"
    f" (SELECT 1 FROM jobs AS n {{by[jobs_waiting]}} WHERE {READY} AND n.priority < (SELECT MIN(priority) FROM parts)"
    " LIMIT 1) AS lower"
    f" FROM parts AS p LEFT JOIN {{for_each}} SELECT n.key AS value FROM jobs AS n {{by[jobs_waiting]}} WHERE {READY}"
    " AND n.priority = p.priority AND n.task = p.task AND n.owner >= p.owner AND n.owner <= p.owner"
    " AND (n.expires_at IS NULL OR n.expires_at > :now) ORDER BY n.owner, n.key"
    " LIMIT (SELECT CASE WHEN COUNT(DISTINCT owner) >= :most THEN 1 ELSE :most END FROM parts) {end_each} AS k ON true"
)


def _claiming(these: str, **columns: str) -> Sql:
    return Sql(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = :worker, claimed_at = :now,"
        f" started_at = NULL, number = number + 1 WHERE key {{once}} {these}"
        " WHERE NOT EXISTS (SELECT 1 FROM workers WHERE id = :worker AND COALESCE(lost_at, stopped_at) IS NOT NULL)"
        " AND NOT EXISTS (SELECT 1 FROM queues WHERE name = :queue AND paused_at IS NOT NULL) LIMIT :most {end}"
        " RETURNING key, id, task, queue, owner, attempt, deaths, priority, number,"
        " (SELECT headers FROM payloads WHERE job = jobs.key) AS headers,"
        " (SELECT properties FROM payloads WHERE job = jobs.key) AS properties,"
        " (SELECT body FROM payloads WHERE job = jobs.key) AS body",
        **columns,
    )


_CLAIM = _claiming(
    f"SELECT k.value FROM {{rows}} CROSS JOIN {{for_each}} SELECT n.key AS value FROM jobs AS n {{by[jobs_waiting]}}"
    f" WHERE {READY} AND n.priority = v.priority AND n.task = v.task AND n.owner >= v.owner AND n.owner <= v.owner"
    " AND (n.expires_at IS NULL OR n.expires_at > :now) {first_of_group} {end_each} AS k",
    priority="int", task="text", owner="text", most="int",
)  # fmt: skip
# Where nobody else can have claimed them meanwhile.
_CLAIM_THESE = _claiming("SELECT k.value FROM ({each_int}) AS k")

_NONE = Message("{}", "{}", "")  # cannot be read: such a job fails, and never holds up its queue


class Window(NamedTuple):
    """What was seen of the waiting jobs of one priority: those of some owners, in the order of their names."""

    jobs: list[Any]
    end: str | None  # the last owner who was seen, unless all were
    below: int | None  # where to go on, unless nothing waits below


def claim(tx: Transaction, requests: Sequence[ClaimRequest]) -> list[list[Claimed] | Exception]:
    """Give each request up to `limit` jobs, best first.

    The queues of a request are asked in its order until the limit is reached.
    """
    return [_claim(tx, request) for request in requests]


def share(jobs: Iterable[Any], most: int, after: str) -> list[Any]:
    """Choose from jobs of one priority: owners take turns, the first is the next `after` who had the last turn."""
    owners = defaultdict(list)
    for job in sorted(jobs, key=lambda job: job.key):
        owners[job.owner].append(job)
    turns = [(turn, owner <= after, owner, job) for owner in owners for turn, job in enumerate(owners[owner])]
    return [job for *_, job in sorted(turns, key=lambda turn: turn[:3])[:most]]


def _claim(tx: Transaction, request: ClaimRequest) -> list[Claimed]:
    now = clock.micros()
    taken: list[Any] = []
    for tasks, limit in (*((as_json([task]), 1) for task in request.one_each), (request.tasks, request.limit)):
        most = min(limit, request.limit - len(taken))
        for queue in request.queues:
            if most <= 0:
                break
            rows = _Turnstile(tx, request.worker, queue, tasks, request.served.get(queue, ""), now).take(most)
            taken += rows
            most -= len(rows)
    for row in taken:
        tx.record(row.key, row.number, now, Kind.CLAIMED, {"worker": request.worker, "attempt": row.attempt})
        tx.count(State.QUEUED, row.queue, row.task, -1)
        tx.count(State.RUNNING, row.queue, row.task, 1)
    return [
        Claimed(
            row.key, row.id, row.task, row.queue, row.owner, row.attempt, row.deaths,
            _NONE if row.headers is None else Message(row.headers, row.properties, row.body),
        )
        for row in taken
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Turnstile:
    """Where a worker is served from one queue."""

    tx: Transaction
    worker: str
    queue: str
    tasks: str
    after: str
    now: int

    def take(self, most: int) -> list[Any]:
        """Take the best jobs, in the order in which they should run."""
        ends = {tuple(row) for row in self.tx.run(_ENDS, queue=self.queue)}
        if len(ends) < 2:
            groups = {group: most for group in ends if as_json(group[1]) in self.tasks}
            return share(self._from_groups(groups, most), most, self.after) if groups else []
        taken: list[Any] = []
        below: int | None = HIGHEST
        while below is not None and len(taken) < most:
            jobs, below = self._look(below, most - len(taken))
            taken += share(self._take(jobs), most, self.after) if jobs else []
        return taken

    def _look(self, best: int, most: int) -> tuple[list[Any], int | None]:
        """Choose jobs of the best priority there is; also return where to go on."""
        first = self._window("", best, most)
        jobs = first.jobs
        if first.end is not None and self.after:  # so many owners that they are not all looked at
            jobs, start = [], self.after
            for _ in range(WINDOWS):
                window = self._window(start, best, most)
                jobs += window.jobs
                if window.end is None:
                    jobs += [job for job in first.jobs if job.owner <= self.after]
                    break
                if len(jobs) >= most:
                    break
                start = window.end
        return share(jobs, most, self.after), first.below

    def _window(self, after: str, best: int, most: int) -> Window:
        owners = most + OWNERS
        rows = self.tx.run(
            _GROUPS, each=self.tasks, queue=self.queue, best=best, after=after, owners=owners, most=most, now=self.now
        ).all()
        # Behind the end of a task that has more owners, those of the other tasks have to wait for theirs.
        end = min((row.owner for row in rows if row.place == owners), default=None)
        jobs = [row for row in rows if row.key is not None and (end is None or row.owner <= end)]
        return Window(jobs, end, rows[0].priority - 1 if rows and rows[0].lower is not None else None)

    def _take(self, jobs: list[Any]) -> list[Any]:
        values = {"worker": self.worker, "queue": self.queue, "now": self.now, "most": len(jobs)}
        if self.tx.dialect == "sqlite":
            return self.tx.run(_CLAIM_THESE, each=[job.key for job in jobs], **values).all()
        groups = Counter((job.priority, job.task, job.owner) for job in jobs)
        rows = self._from_groups(groups, len(jobs))
        missing = len(jobs) - len(rows)
        if missing:  # others were quicker: take whatever they have left there
            rows += self._from_groups(dict.fromkeys(groups, missing), missing)
        return rows

    def _from_groups(self, groups: Mapping[Any, int], most: int) -> list[Any]:
        rows = [
            {"priority": priority, "task": task, "owner": owner, "most": number}
            for (priority, task, owner), number in groups.items()
        ]
        return self.tx.run(_CLAIM, rows=rows, worker=self.worker, queue=self.queue, now=self.now, most=most).all()
