"""Queues the jobs whose time has come, and cancels those whose expiry has passed.

Knows the next such moment and sleeps until then; an announcement of a sooner one wakes it.
"""

from celeriac import clock
from celeriac.keeper.detour import Detour
from celeriac.keeper.leader import Leader
from celeriac.ledger import upkeep

LOOK_SECONDS = 1.0
BATCH = 500


class Due:
    """The duty of falling due."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._detour = Detour(BATCH)

    def tick(self) -> float:
        """Move what is due, at most a batch of each kind; return the seconds until the next look."""
        at = upkeep.next_due(self._leader.ledger)
        if at is not None and at <= clock.micros():
            with self._detour.batch() as (most, skip), self._leader.transaction() as tx:
                moved = upkeep.fall_due(tx, most), upkeep.expire(tx, most, skip)
            if max(moved) >= most:
                return 0
            if not any(moved):  # somebody else's transaction holds their rows
                return LOOK_SECONDS
            at = upkeep.next_due(self._leader.ledger)
        if at is None or self._detour.skip:
            return LOOK_SECONDS
        return min(max((at - clock.micros()) / 1_000_000, 0.001), LOOK_SECONDS)
