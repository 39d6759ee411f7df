"""Strain: how much slower a drain is while somebody troubles its Postgres.

Nothing of this may stop a worker: that is tested. Here is what it costs (cases F07, F15 and F18 of docs/guarantees.md).
"""

import contextlib
import threading
from collections.abc import Iterator
from functools import partial

import psycopg

from benchmarks import cpu, postgres
from benchmarks.instance import Instance
from benchmarks.processes import until
from benchmarks.rounds import Measure, Result, alternate
from celeriac.app import Tasks, load_app
from celeriac.app.tasks import JobRequest
from celeriac.ledger import Ledger, submit

TITLE = "a drain of no-op jobs by one worker, two at a time, while it or its Postgres is troubled"
POISON = "benchmarks.apps.poison:app"
POISONOUS = 10
MEASURES = [
    Measure("rate", "drained", "jobs per s", more=True, goal="0.5 while connections end, 0.7 beside old snapshots"),
    Measure("cpu", "CPU, worker and server", "µs per job"),
]
_END_ONE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'celeriac%'"
    " ORDER BY random() LIMIT 1"
)


@contextlib.contextmanager
def ending(_: Instance, database: postgres.Postgres) -> Iterator[None]:
    """End five connections a second, whichever."""
    over = threading.Event()

    def end() -> None:
        with psycopg.connect(database.url, autocommit=True) as admin:
            while not over.wait(0.2):
                admin.execute(_END_ONE)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def holding(_: Instance, database: postgres.Postgres) -> Iterator[None]:
    """Hold old snapshots: a transaction that has written and is idle, and four readers; no row can be vacuumed away."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(database.url)) for _ in range(5)]
        connections[0].execute("CREATE TABLE held (at int)")
        for reader in connections[1:]:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT COUNT(*) FROM jobs")
        yield


@contextlib.contextmanager
def poisoning(ours: Instance, database: postgres.Postgres) -> Iterator[None]:
    """Let ten jobs be claimed first that each end their processes until they are quarantined."""
    ours.start("keeper", "keeper")  # makes them due again after their pauses
    tasks = Tasks(load_app(POISON))
    with contextlib.closing(Ledger(database.url)) as ledger:
        for _ in range(POISONOUS):
            ledger.do(submit, tasks.submission(JobRequest("poison", b"{}", "small", 9), "benchmark"))
    yield
    ask = "SELECT COUNT(*) FROM jobs WHERE error_code = 'quarantined'"
    until(lambda: database.ask(ask) == POISONOUS, "their quarantine")


def run(quick: bool) -> Result:
    """Measure all four."""
    jobs = 2_000 if quick else 10_000
    sides = {
        "undisturbed": cpu.side(postgres.celeriac, jobs),
        "five connections end each second": cpu.side(partial(postgres.celeriac, ending), jobs),
        "ten jobs that end their processes": cpu.side(partial(postgres.celeriac, poisoning, POISON), jobs),
        "an idle writer and four old readers": cpu.side(partial(postgres.celeriac, holding), jobs),
    }
    return Result("strain", TITLE, MEASURES, alternate(sides, 2 if quick else 3), [f"{jobs:,} jobs in each round."])
