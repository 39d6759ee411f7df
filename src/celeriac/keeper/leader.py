"""Who keeps: one leader, by a lease in the ledger whose term fences its predecessors.

The leader raises a counter. A standby that reads the same counter for `leader_seconds` of its
own time takes over with the next term. Every duty writes in a transaction that renews the
term first, so a leader that slept through its end changes nothing.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from celeriac import clock
from celeriac.errors import LedgerFull, LedgerLocked, LedgerUnavailable
from celeriac.ledger import Ledger, Transaction, nodes

log = logging.getLogger(__name__)

NAME = "keeper"


class LeadLost(Exception):
    """Another keeper leads now."""


class Leader:
    """This keeper's part in the election."""

    def __init__(self, ledger: Ledger, lease_seconds: float) -> None:
        self.ledger = ledger
        self.term: int | None = None
        self.refusals = 0  # how often the ledger could not be written
        self.holder = f"{socket.gethostname()}/{os.getpid()}/{os.urandom(3).hex()}"
        self._lease_seconds = lease_seconds
        self._seen: nodes.Lead | None = None
        self._silent = 0.0
        self._looked_at: float | None = None

    @property
    def leads(self) -> bool:
        """Whether this keeper believes it leads; a transaction finds out."""
        return self.term is not None

    def tick(self) -> None:
        """Renew the lead, or try to take it over from a leader that has been silent for the lease."""
        if self.term is not None:
            try:
                with self.transaction():
                    return
            except LeadLost:
                return
        dead = self._observe()
        if dead is not None or self._seen is None or self._seen.released:
            with self.ledger.transaction() as tx:
                self.term = nodes.campaign(tx, NAME, self.holder, dead)

    def _observe(self) -> nodes.Lead | None:
        """Look at the leader; return it once it has not moved for the whole lease."""
        seen, now = nodes.leader(self.ledger, NAME), clock.monotonic()
        # Only time between two reads that follow each other counts: an outage makes nobody dead.
        since = 0.0 if self._looked_at is None else min(now - self._looked_at, self._lease_seconds / 2)
        self._silent = self._silent + since if seen == self._seen else 0.0
        self._seen, self._looked_at = seen, now
        return seen if seen is not None and self._silent >= self._lease_seconds else None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction that only the leader of the present term can commit. Raises LeadLost."""
        if self.term is None:
            raise LeadLost
        try:
            with self.ledger.transaction() as tx:
                if not nodes.renew(tx, NAME, self.holder, self.term):
                    log.warning("Another keeper leads now; this one stands by.")
                    self.term = self._seen = None
                    raise LeadLost
                yield tx
        except (LedgerFull, LedgerUnavailable) as error:
            self.refusals += not isinstance(error, LedgerLocked)
            raise

    def release(self) -> None:
        """Give up the lead at a clean end, so that another keeper need not wait."""
        if self.term is not None:
            with self.ledger.transaction() as tx:
                nodes.release(tx, NAME, self.holder, self.term)
            self.term = None
