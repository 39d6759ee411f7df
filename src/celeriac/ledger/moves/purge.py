"""Purge: everything that waits in a queue is cancelled, as `celery purge` asks for it.

The jobs stay in the ledger, cancelled, with what was to follow them. What runs is left alone.
"""

from celeriac.ledger.moves.requests import cancel_waiting
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction
from celeriac.states import WAITING

_WAITING = Sql(
    "SELECT key, id, state, queue, task, number, chord, group_index FROM jobs {by[jobs_kind]}"
    " WHERE state = :state AND queue = :queue AND observed = 0 LIMIT :most {lock_row}"
)


def purge(tx: Transaction, queue: str, most: int = 500) -> int:
    """Cancel jobs that wait in a queue; return how many, fewer than `most` when none is left."""
    rows: list[object] = []
    for state in sorted(WAITING):
        rows += tx.run(_WAITING, state=state, queue=queue, most=most - len(rows)).all()
    cancel_waiting(tx, rows, None)
    return len(rows)
