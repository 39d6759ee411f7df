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
_RESUME = Sql("DELETE FROM queues WHERE name IN ({each}) RETURNING name")


def pause(tx: Transaction, names: Sequence[str]) -> list[Exception | None]:
    """Let nobody claim from these queues. Pausing twice changes nothing."""
    now = clock.micros()
    tx.run(_PAUSE, rows=[{"name": name, "paused_at": now} for name in sorted(set(names))])
    return [None] * len(names)


def resume(tx: Transaction, names: Sequence[str]) -> list[Exception | None]:
    """Let these queues be claimed from again, and wake their workers. Resuming twice changes nothing."""
    tx.wakes |= {row.name for row in tx.run(_RESUME, each=sorted(set(names)))}
    return [None] * len(names)


def queue(ledger: Ledger, name: str) -> Queue:
    """Return one queue with its counts. Raises QueueNotFound."""
    found = next((queue for queue in read.all_queues(ledger) if queue.name == name), None)
    if found is None:
        raise QueueNotFound(name)
    return found
