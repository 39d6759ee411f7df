"""Ends observed jobs of which nobody has seen anything for days: their messages never came to a worker.

Without it a message that a broker lost would leave a job waiting in the ledger for ever.
"""

from celeriac import clock
from celeriac.keeper.leader import Leader
from celeriac.ledger.moves import observe

LOOK_SECONDS = 60.0
PAUSE_SECONDS = 0.02
BATCH = 200
DAY = 86_400_000_000


class Sentry:
    """The duty of giving up what is not delivered."""

    def __init__(self, leader: Leader, observed_days: float) -> None:
        self._leader = leader
        self._days = observed_days

    def tick(self) -> float:
        """Give up a batch; return the seconds until the next time, soon while there is more."""
        before = clock.micros() - int(self._days * DAY)
        if not observe.any_unseen(self._leader.ledger, before):
            return LOOK_SECONDS
        with self._leader.transaction() as tx:
            observe.give_up_unseen(tx, self._days, before, BATCH)
        return PAUSE_SECONDS
