"""Folds the count deltas into the counts, and the write-ahead log into the database file.

Counts are exact without it, only slower to read: every commit leaves a few deltas behind.
"""

from celeriac.keeper.leader import Leader
from celeriac.ledger import counts

LOOK_SECONDS = 1.0
BATCH = 500  # a millisecond or two, in which nobody else writes on SQLite
PAUSE_SECONDS = 0.02


class Tally:
    """The duty of adding up."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    def tick(self) -> float:
        """Fold a batch; return the seconds until the next time, soon while there is more."""
        if not counts.any_delta(self._leader.ledger):
            return LOOK_SECONDS
        with self._leader.transaction() as tx:
            folded = counts.fold_counts(tx, BATCH)
        if folded >= BATCH:
            return PAUSE_SECONDS
        self._leader.ledger.checkpoint()
        return LOOK_SECONDS
