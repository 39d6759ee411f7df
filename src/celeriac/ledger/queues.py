"""Queues as people command them: pause and resume, and a look at one.

A paused queue keeps accepting jobs; nobody claims them until it is resumed (`moves/claim.py`
asks). A queue need not exist to be paused: whatever comes to it then waits.
"""

from collections.abc import Sequence

from celeriac import clock
from celeriac.errors import QueueNotFound
from celeriac.jobs import Queue
from celeriac.ledger import read
from celeriac.ledger.sql import Insert, Sql
from celeriac.ledger.store import Ledger, Transaction

_PAUSE = Insert(
    "queues",
    "ON CONFLICT (name) DO UPDATE SET paused_at = COALESCE(queues.paused_at, excluded.paused_at)",
    name="text", paused_at="int",
)  # fmt: skip
_WAITING = Sql(
    "SELECT COUNT(*) FROM (SELECT 1 FROM jobs {by[jobs_waiting]} WHERE state = 'queued' AND queue = :queue"
    " AND observed = 0 LIMIT :most) AS head WHERE NOT EXISTS"
    " (SELECT 1 FROM queues WHERE name = :queue AND paused_at IS NOT NULL)"
)
_RESUME = Sql("DELETE FROM queues WHERE name IN ({each}) RETURNING name")


def pause(tx: Transaction, names: Sequence[str]) -> list[Exception | None]:
    """Let nobody claim from these queues. Pausing twice changes nothing."""
    now = clock.micros()
    tx.run(_PAUSE, rows=[{"name": name, "paused_at": now} for name in sorted(set(names))])
    return [None] * len(names)


def resume(tx: Transaction, names: Sequence[str]) -> list[Exception | None]:
    """Let these queues be claimed from again, and wake their workers. Resuming twice changes nothing."""
    for row in tx.run(_RESUME, each=sorted(set(names))):
        tx.wake(row.name)
    return [None] * len(names)


def waiting(ledger: Ledger, names: Sequence[str], most: int) -> dict[str, int]:
    """Return how many jobs of each queue could be claimed now, as far as `most`; those of a paused one cannot."""
    with ledger.reading() as connection:
        ask = _WAITING.on(ledger.dialect)
        return {name: connection.execute(ask, {"queue": name, "most": most}).scalar_one() for name in names}


def queue(ledger: Ledger, name: str) -> Queue:
    """Return one queue with its counts. Raises QueueNotFound."""
    found = next((queue for queue in read.all_queues(ledger) if queue.name == name), None)
    if found is None:
        raise QueueNotFound(name)
    return found
