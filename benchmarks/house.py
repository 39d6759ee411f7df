"""A whole instance on a given ledger: how fast it accepts jobs over HTTP, and how fast a worker ends them.

Web, keeper and a worker with two children, started as anyone would; used to compare ledgers of different size.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import instance
from benchmarks.engines import BODY
from benchmarks.load import drive
from benchmarks.processes import cpu, stopping, until
from benchmarks.rounds import Sample
from benchmarks.wire import request
from celeriac.ledger import Ledger

CLIENTS = 16
DEADLINE_SECONDS = 120
WHERE = f"WHERE state = 'succeeded' AND task = '{BODY['task']}'"
ENDED = (
    f"SELECT SUM(jobs) FROM (SELECT jobs FROM counts {WHERE}"
    f" UNION ALL SELECT jobs FROM count_deltas {WHERE}) AS entries"
)


class House:
    """The processes of an instance, and the ledger they share with us."""

    def __init__(self, ours: instance.Instance, ledger: Ledger) -> None:
        self._ours, self._ledger = ours, ledger
        ours.set_up()
        self._web, self._worker = ours.web(), ours.worker()
        ours.start("keeper", "keeper")
        self._post = request("POST", instance.JOBS, BODY, ours.token)
        self.measure(300)

    def measure(self, jobs: int) -> Sample:
        """Fill the queue of a stopped worker over HTTP, then let the worker drain it."""
        before = self._ended()
        self._worker.pause()
        used = cpu([self._web])
        load = drive(self._ours.port, [self._post], CLIENTS, most=jobs).expect(202)
        accepting = cpu([self._web]) - used
        used, began = cpu([self._worker]), time.perf_counter()
        self._worker.resume()
        until(lambda: self._ended() - before >= load.answers, "the drain", DEADLINE_SECONDS)
        seconds = time.perf_counter() - began
        return {
            "submit": load.rate, "submit cpu": 1e6 * accepting / load.answers,
            "drain": load.answers / seconds, "drain cpu": 1e6 * (cpu([self._worker]) - used) / load.answers,
        }  # fmt: skip

    def _ended(self) -> int:
        with self._ledger.reading() as connection:  # asked often: all counts would take a tenth of a core
            return int(connection.exec_driver_sql(ENDED).scalar() or 0)


@contextlib.contextmanager
def house(ledger: Ledger) -> Iterator[House]:
    """Give an instance on a ledger, and end its processes."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder, stopping([]) as processes:
        ours = instance.Instance(
            Path(folder), processes, CELERIAC_DATABASE_URL=ledger.url, CELERIAC_LOG_LEVEL="WARNING",
            CELERIAC_JOB_DAYS="3650", CELERIAC_EVENT_DAYS="3650",
        )  # fmt: skip
        yield House(ours, ledger)
