"""Batches: how many rows a second the ledger takes a thousand at a time, and how many over HTTP.

On a SQLite file and on a private Postgres as shipped (synced to disk), or on `--database URL` alone. No worker runs.
The ledger's figures are one thread's, from requests checked beforehand; those over HTTP hold everything.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import instance, postgres
from benchmarks.load import drive
from benchmarks.processes import cpu
from benchmarks.rounds import Measure, Result, Sample, alternate
from benchmarks.wire import request
from celeriac.app import JobRequest, Tasks, connect
from celeriac.demo.tasks import app
from celeriac.jobs import new_id
from celeriac.ledger import Ledger, batches
from celeriac.ledger.batches import BatchSubmission
from celeriac.settings import load

TITLE = "Batches of 1,000 jobs: rows a second into the ledger, and over HTTP to one web process"
SIZE = 1000
BATCH = "/api/v1/jobs/batch"
CLIENTS = (1, 4)
MEASURES = [
    Measure("rows", "ledger, one thread", "rows per s", more=True, goal="10,000 on SQLite, 20,000 on Postgres"),
    Measure("python", "of this: CPU of the process", "µs per row"),
    Measure("checking", "checking and encoding requests", "µs per row"),
    *(
        measure
        for clients in CLIENTS
        for measure in (
            Measure(f"http{clients}", f"HTTP, {clients} client{'s' * (clients > 1)}", "rows per s", more=True),
            Measure(f"cpu{clients}", f"HTTP, {clients} client{'s' * (clients > 1)}: server CPU", "µs per row"),
            Measure(f"p50{clients}", f"HTTP, {clients} client{'s' * (clients > 1)}: p50", "ms per batch"),
        )
    ),
]


def run(quick: bool, database: str | None = None) -> Result:
    """Measure the ledger and a web process on each database."""
    with contextlib.ExitStack() as stack:
        sides = {}
        if database is None:
            sides["SQLite"] = stack.enter_context(_side(quick))
            server, _ = stack.enter_context(postgres.server())
            sides["Postgres"] = stack.enter_context(_side(quick, server.url))
        else:
            sides["given"] = stack.enter_context(_side(quick, database))
        return Result("batches", TITLE, MEASURES, alternate(sides, 2 if quick else 5))


@contextlib.contextmanager
def _side(quick: bool, database: str = "") -> Iterator[Callable[[], Sample]]:
    with instance.instance(CELERIAC_DATABASE_URL=database) as ours:
        web = ours.web()
        job = {"task": "echo", "args": {"value": 1}}
        post = request("POST", BATCH, {"jobs": [job] * SIZE}, ours.token)
        ledger = connect(load(home=Path(ours.home), database_url=database))

        def measure() -> Sample:
            sample = _into(ledger, 10 if quick else 40)
            for clients in CLIENTS:
                drive(ours.port, [post], clients, most=2 * clients)
                used = cpu([web])
                seen = drive(ours.port, [post], clients, seconds=1.5 if quick else 4).expect(202)
                rows = seen.answers * SIZE
                sample |= {
                    f"http{clients}": rows / seen.seconds,
                    f"cpu{clients}": 1e6 * (cpu([web]) - used) / rows,
                    f"p50{clients}": seen.p50,
                }
            return sample

        yield measure
        ledger.close()


def _into(ledger: Ledger, times: int) -> Sample:
    """Submit batches one after the other."""
    tasks, seconds, used, checking = Tasks(app), 0.0, 0.0, 0.0
    for _ in range(times):
        begun = time.process_time()
        asked = tuple(tasks.submission(JobRequest("echo", b'{"value": 1}'), "ann") for _ in range(SIZE))
        checking += time.process_time() - begun
        id = new_id()
        batch = BatchSubmission(id, "ann", tuple(replace(one, batch=id) for one in asked))
        began, before = time.perf_counter(), time.process_time()
        ledger.do(batches.submit_batch, batch)
        seconds += time.perf_counter() - began
        used += time.process_time() - before
    rows = times * SIZE
    return {"rows": rows / seconds, "python": 1e6 * used / rows, "checking": 1e6 * checking / rows}
