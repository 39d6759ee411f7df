"""The pace of tasks with a `rate_limit`: which of them a node may claim now.

A limit holds for one worker node, as Celery documents it. A task out of turn is left out of the
claim, so its jobs stay queued in the ledger, for this node's next turn or for another node.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from celery.utils.time import rate

from celeriac import clock
from celeriac.ledger.sql import as_json


class Pace:
    """When each limited task has its next turn; a turn is one job."""

    def __init__(self, tasks: Mapping[str, Any], names: Iterable[str]) -> None:
        self._tasks = tasks
        self._names = tuple(sorted(names))
        self._seconds: dict[str, float] = {}  # task -> between two jobs
        self._next: dict[str, float] = {}
        self.free = ""
        self.read()

    def read(self) -> None:
        """Read the limits of the tasks, which remote control may have changed."""
        rates = {name: rate(getattr(self._tasks[name], "rate_limit", None)) for name in self._names}
        self._seconds = {name: 1 / each for name, each in rates.items() if each}
        # The tasks without a limit, as the ledger takes them (JSON).
        self.free = as_json([name for name in self._names if name not in self._seconds])

    def turns(self) -> tuple[str, ...]:
        """Return the limited tasks that may start one job now."""
        if not self._seconds:
            return ()
        now = clock.monotonic()
        return tuple(name for name in self._seconds if self._next.get(name, 0.0) <= now)

    def spend(self, task: str) -> float | None:
        """Note that a job of a task was claimed; return the seconds until its next turn, None for a task without."""
        seconds = self._seconds.get(task)
        if seconds is not None:
            self._next[task] = clock.monotonic() + seconds
        return seconds
