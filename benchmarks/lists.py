"""Lists: pages, counts, submits, drains and pruning beside a million jobs, and the same on an empty ledger.

`--jobs N` says how many, `--database URL` where (an empty database, or one that this has filled before; on Postgres a
second one is made beside it).
"""

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from sqlalchemy import create_engine, make_url

from benchmarks.filling import fill
from benchmarks.house import CLIENTS, house
from benchmarks.rounds import Measure, Result, Sample, alternate
from celeriac.access import SYSTEM, Principal
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.jobs import Filter, Message, Submission, new_id
from celeriac.keeper.leader import Leader
from celeriac.keeper.pruner import DAY, LOOK_SECONDS, Pruner
from celeriac.keeper.tally import Tally
from celeriac.ledger import Ledger, migrations, read, submit
from celeriac.ledger.stats import stats

LIMIT = 50
DEEP = 1_000
QUIET_SECONDS = 60
PRUNED = 1_000_000
MESSAGE = Message('{"task":"bench","retries":0,"lang":"py"}', '{"priority":0}', '[[],{"order":1},{}]')
TASKS = [f"shop.task_{number}" for number in range(50)]
BIG, SMALL = (Principal(owner, PERMISSIONS[Role.SUBMITTER]) for owner in ("big", "owner-7"))
LISTS: dict[str, tuple[Principal, Filter]] = {
    "everything": (SYSTEM, Filter()),
    "state=succeeded": (SYSTEM, Filter(states=("succeeded",))),
    "state=failed": (SYSTEM, Filter(states=("failed",))),
    "state=queued,running": (SYSTEM, Filter(states=("queued", "running"))),
    "task": (SYSTEM, Filter(tasks=("shop.task_9",))),
    "queue and state=failed": (SYSTEM, Filter(queues=("queue-3",), states=("failed",))),
    "own jobs (two fifths)": (BIG, Filter()),
    "own jobs (0.3 %)": (SMALL, Filter()),
    "own jobs (0.3 %), failed": (SMALL, Filter(states=("failed",))),
    "tag": (SYSTEM, Filter(tags=("tag-7",))),
    "tag and state=failed": (SYSTEM, Filter(tags=("tag-7",), states=("failed",))),
    "since and until": (SYSTEM, Filter()),  # put in when it is known how long ago is when
    "q=beginning of a task": (SYSTEM, Filter(q="shop.task_4")),
    "q=type of an error": (SYSTEM, Filter(q="PaymentR")),
    "q=beginning of a tag": (SYSTEM, Filter(q="tag-3")),
    "q=nothing": (SYSTEM, Filter(q="nothing")),
}
_numbers = count()


def run(quick: bool, jobs: int | None = None, database: str | None = None) -> Result:
    """Measure a filled ledger beside an empty one."""
    jobs = jobs or (20_000 if quick else 1_000_000)
    notes: list[str] = []
    with _ledgers(database) as (full, empty):
        with full.reading() as connection:
            has = connection.exec_driver_sql("SELECT COUNT(*) FROM counts").scalar()
        if not has:
            print(f"  filling with {jobs:,} jobs", file=sys.stderr, flush=True)
            notes.append(f"Filling took {fill(full, jobs):,.0f} s.")
        cursors = _cursors(full)
        size = f"{jobs:,} jobs"
        samples = alternate(
            {size: lambda: _lists(full, cursors, 4 if quick else 20) | _glances(full)}, 3 if quick else 5
        )
        with house(full) as large, house(empty) as small:
            many, rounds = (500, 3) if quick else (4_000, 8)
            for side in (large, small):  # both have been read from disk then
                side.measure(500)
            moves = alternate({size: lambda: large.measure(many), "empty": lambda: small.measure(many)}, rounds)
        samples = {size: samples[size] + moves[size], "empty": moves["empty"]}
        print("  pruning", file=sys.stderr, flush=True)
        samples[size].append(_pruning(full, min(PRUNED, jobs), 2 if quick else QUIET_SECONDS))
    title = f"pages of {LIMIT}, moves and pruning on {full.dialect}"
    return Result("lists", title, _measures(), samples, notes)


def _measures() -> list[Measure]:
    pages = [
        Measure(f"{name} {which}", f"{name}: {which} page, p95", "ms", goal="50")
        for name in LISTS
        for which in ("first", f"{DEEP:,}th")
    ]
    return [
        *pages,
        Measure("p50", "all of these, p50", "ms"),
        Measure("counts", "counts by state, queue and task, p95", "ms", goal="5"),
        Measure("queues", "queues with counts and ages, p95", "ms", goal="5"),
        Measure("stats", "stats, p95", "ms"),
        Measure("submit", f"HTTP submits, {CLIENTS} clients", "per s", more=True, goal="0.95 of empty"),
        Measure("submit cpu", "CPU of web", "µs per submit"),
        Measure("drain", "drained by one worker", "jobs per s", more=True, goal="0.95 of empty"),
        Measure("drain cpu", "CPU of the worker", "µs per job"),
        Measure("quiet", "longest submit, nothing pruned", "ms"),
        Measure("quiet disk", "longest sync of a file beside it", "ms"),
        Measure("stall", "longest submit while pruning", "ms", goal="50"),
        Measure("disk", "longest sync of a file beside it meanwhile", "ms"),
        Measure("stall99", "p99 of submits while pruning", "ms"),
        Measure("pruned", "jobs pruned"),
        Measure("pruning", "pruned, with payloads and events", "jobs per s", more=True),
    ]


@contextlib.contextmanager
def _ledgers(database: str | None) -> Iterator[tuple[Ledger, Ledger]]:
    """Give the ledger to fill and an empty one on the same disk or server."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder, contextlib.ExitStack() as stack:
        urls = [database or f"sqlite:///{folder}/full.db", f"sqlite:///{folder}/empty.db"]
        if database and not database.startswith("sqlite"):
            urls[1] = stack.enter_context(_database_beside(database))
        ledgers = []
        for url in urls:
            ledger = Ledger(url)
            stack.callback(ledger.close)
            migrations.upgrade(ledger)
            ledgers.append(ledger)
        yield ledgers[0], ledgers[1]


@contextlib.contextmanager
def _database_beside(url: str) -> Iterator[str]:
    name = f"celeriac_bench_{time.time_ns()}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


def _cursors(ledger: Ledger) -> dict[str, str | None]:
    """Return the cursor of the 1,000th page of each list, or of its last one if there are fewer."""
    with ledger.reading() as connection:
        middle, newest = connection.exec_driver_sql(
            "SELECT MIN(created_at) + (MAX(created_at) - MIN(created_at)) / 2, MAX(created_at) FROM jobs"
        ).one()
    LISTS["since and until"] = (SYSTEM, Filter(since=middle, until=(middle + 3 * newest) // 4))
    cursors: dict[str, str | None] = {}
    for name, (principal, filter) in LISTS.items():
        after, passed = None, 0
        while passed < (DEEP - 1) * LIMIT:
            jobs, onward = read.page(ledger, principal, filter, after, min(500, (DEEP - 1) * LIMIT - passed))
            passed += len(jobs) or LIMIT
            if onward is None:
                break
            after = onward
        cursors[name] = after
    return cursors


def _times(times: int, what: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        what()
        taken.append(1e3 * (time.perf_counter() - began))
    return sorted(taken)


def _p95(taken: list[float]) -> float:
    return taken[int(0.95 * len(taken))]


def _lists(ledger: Ledger, cursors: dict[str, str | None], times: int) -> Sample:
    sample, all_taken = {}, []
    for name, (principal, filter) in LISTS.items():
        for which, after in (("first", None), (f"{DEEP:,}th", cursors[name])):
            taken = _times(times, lambda p=principal, f=filter, a=after: read.page(ledger, p, f, a, LIMIT))
            sample[f"{name} {which}"] = _p95(taken)
            all_taken += taken
    return sample | {"p50": statistics.median(all_taken)}


def _glances(ledger: Ledger) -> Sample:
    def counts() -> None:
        with ledger.reading() as connection:
            read.all_counts(connection)

    glances: dict[str, Callable[[], object]] = {
        "counts": counts, "queues": lambda: read.all_queues(ledger), "stats": lambda: stats(ledger, SYSTEM)
    }  # fmt: skip
    return {name: _p95(_times(20, glance)) for name, glance in glances.items()}


def _submission() -> Submission:
    """Return a job of any task and owner."""
    place = next(_numbers)
    owner = "big" if place % 5 < 2 else f"owner-{place % 199}"
    return Submission(new_id(), TASKS[place % len(TASKS)], "bench", owner, MESSAGE, args='{"order":1}')


def _leader(ledger: Ledger) -> Leader:
    leader = Leader(ledger, 0.0)
    while not leader.leads:
        leader.tick()
    return leader


def _pruning(ledger: Ledger, jobs: int, quiet: float) -> Sample:
    """Prune so many jobs as a keeper would, while another process submits one job at a time."""
    with ledger.reading() as connection:
        ends = "SELECT finished_at FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at"
        last = connection.exec_driver_sql(f"{ends} LIMIT 1 OFFSET {jobs}").scalar() or time.time_ns() // 1000
    days = (time.time_ns() // 1000 - last) / DAY
    with _beside(_submit, ledger.url) as resting, _beside(_sync) as resting_disk:
        time.sleep(quiet)
    leader = _leader(ledger)
    duties = {Pruner(leader, days, days): 0.0, Tally(leader): 0.0}
    before, began = _count(ledger), time.perf_counter()
    with _beside(_submit, ledger.url) as taken, _beside(_sync) as disk:
        pruner = next(iter(duties))
        pause = 0.0
        while pause < LOOK_SECONDS:
            for duty, at in duties.items():
                if time.perf_counter() >= at:
                    told = duty.tick()
                    duties[duty] = time.perf_counter() + told
                    if duty is pruner:
                        pause = told
            time.sleep(max(0.0, min(duties.values()) - time.perf_counter()))
        seconds = time.perf_counter() - began
    pruned = before + len(taken) - _count(ledger)
    return {
        "quiet": max(resting), "quiet disk": max(resting_disk), "stall": max(taken), "disk": max(disk),
        "stall99": sorted(taken)[int(0.99 * len(taken))],
        "pruned": pruned, "pruning": pruned / seconds,
    }  # fmt: skip


def _count(ledger: Ledger) -> int:
    with ledger.reading() as connection:
        return sum(read.all_counts(connection).values())


@contextlib.contextmanager
def _beside(act: Callable[..., None], *arguments: object) -> Iterator[list[float]]:
    """Let another process do something again and again; afterwards, what each time took is in the list (ms)."""
    spawn, taken = multiprocessing.get_context("spawn"), list[float]()
    stopped, answers = spawn.Event(), spawn.Queue()
    process = spawn.Process(target=act, args=(*arguments, stopped, answers), daemon=True)
    process.start()
    answers.get(timeout=60)  # it has begun
    yield taken
    stopped.set()
    taken += answers.get(timeout=60)
    process.join()


def _submit(url: str, stopped: Any, answers: Any) -> None:
    ledger = Ledger(url)
    for _ in range(20):
        ledger.do(submit, _submission())
    _again_and_again(lambda: ledger.do(submit, _submission()), stopped, answers)
    ledger.close()


def _sync(stopped: Any, answers: Any) -> None:
    """Write and sync a page of a file of its own: what the disk alone costs meanwhile."""
    with tempfile.TemporaryFile(prefix="celeriac-bench-") as file:

        def page() -> None:
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            os.fsync(file.fileno())

        _again_and_again(page, stopped, answers)


def _again_and_again(act: Callable[[], object], stopped: Any, answers: Any) -> None:
    answers.put(None)
    taken = []
    while not stopped.is_set():
        began = time.perf_counter()
        act()
        taken.append(1e3 * (time.perf_counter() - began))
        time.sleep(0.005)
    answers.put(taken)
