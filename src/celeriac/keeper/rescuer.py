"""Takes jobs from workers that are dead, and from workers that ended with jobs in their hands.

A worker is dead when this rescuer itself has read the same counter for the whole lease, over
reads that succeeded, while writing was possible and connections were to be had: a database outage, a full
disk, a failover or a sleeping laptop kills nobody's job.
"""

import logging
from collections.abc import Mapping

from celeriac import clock
from celeriac.errors import LedgerUnavailable
from celeriac.keeper.detour import Detour
from celeriac.keeper.leader import Leader
from celeriac.ledger import nodes, upkeep

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
LOOKS = 4  # in a lease, at least: a death is found by a look, after the lease
BATCH = 500


class Rescuer:
    """The duty of rescue."""

    def __init__(self, leader: Leader, lease_seconds: float) -> None:
        self._leader = leader
        self._lease_seconds = lease_seconds
        self._look_seconds = min(LOOK_SECONDS, lease_seconds / LOOKS)
        self._silence: dict[str, tuple[int, float]] = {}  # worker -> its counter, and how long it has stood still
        self._looked_at: float | None = None
        self._refusals = leader.refusals
        self._detour = Detour(BATCH)

    def tick(self) -> float:
        """Look once at every worker and rescue what needs it; return the seconds until the next look."""
        ledger = self._leader.ledger
        if self._leader.refusals != self._refusals:  # who could not write could not beat either: count anew
            self._refusals, self._silence, self._looked_at = self._leader.refusals, {}, None
        with ledger.reading() as connection:
            dead = self.dead(nodes.beats(connection))
        if dead:
            self._let_others_in()
            with self._leader.transaction() as tx:
                for name in nodes.lose(tx, dead):
                    log.warning("Worker %s is silent for %.0f s and taken for dead.", name, self._lease_seconds)
        while upkeep.any_orphan(ledger, self._detour.skip):
            with self._detour.batch() as (most, skip), self._leader.transaction() as tx:
                log.info("Rescued %d jobs.", upkeep.rescue(tx, most, skip))
        return self._look_seconds

    def _let_others_in(self) -> None:
        """Raise if no more connections are to be had: workers that lost theirs may be alive and unable to say so."""
        try:
            self._leader.ledger.knock()
        except LedgerUnavailable:
            self._silence, self._looked_at = {}, None
            raise

    def dead(self, counters: Mapping[str, int]) -> list[str]:
        """Note what the workers' counters are now; return those that stood still for the whole lease."""
        now = clock.monotonic()
        since = 0.0 if self._looked_at is None else min(now - self._looked_at, 2 * self._look_seconds)
        before, self._looked_at = self._silence, now
        self._silence = {}
        for worker, counter in counters.items():
            seen, silent = before.get(worker, (None, 0.0))
            self._silence[worker] = counter, silent + since if counter == seen else 0.0
        return [worker for worker, (_, silent) in self._silence.items() if silent >= self._lease_seconds]
