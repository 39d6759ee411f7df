"""Folds the count deltas into the counts, and the write-ahead log into the database file.

Counts are exact without it, only slower to read: every commit leaves a few deltas behind.
"""

from celeriac.keeper.leader import Leader
from celeriac.ledger import upkeep

LOOK_SECONDS = 1.0


class Tally:
    """The duty of adding up."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    def tick(self) -> float:
        """Fold what there is; return the seconds until the next time."""
        if upkeep.any_delta(self._leader.ledger):
            with self._leader.transaction() as tx:
                upkeep.fold_counts(tx)
            self._leader.ledger.checkpoint()
        return LOOK_SECONDS
