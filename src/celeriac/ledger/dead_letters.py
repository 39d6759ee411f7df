"""Dead letters: messages of a broker that cannot become jobs, kept with the reason for people to look at.

Written by workers (worker/hints.py) before the broker is told to forget them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from celeriac import clock
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction

_BURY = Sql(
    "INSERT INTO dead_letters (at, queue, reason, message) SELECT :now, v.queue, v.reason, v.message FROM {rows}"
    " WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = v.job)",
    queue="text", reason="text", message="text", job="text",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message and what is wrong with it; with `job` it is only dead if the ledger does not have that job."""

    queue: str
    reason: str
    message: str  # JSON
    job: str | None = None


def bury(tx: Transaction, letters: Sequence[DeadLetter]) -> list[Exception | None]:
    """Keep letters that are dead."""
    rows = [{"queue": each.queue, "reason": each.reason, "message": each.message, "job": each.job} for each in letters]
    tx.run(_BURY, rows=rows, now=clock.micros())
    return [None] * len(letters)
