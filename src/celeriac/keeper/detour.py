"""Round what cannot be moved: one bad row, or one that a stranger has locked, must not hold up all others behind it.

A duty that works in batches asks here how many jobs to take and how many to pass over. After a
failure it takes fewer; one that fails alone is passed over, and tried again after a minute.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from celeriac import clock
from celeriac.errors import CeleriacError, LedgerLocked
from celeriac.keeper.leader import LeadLost

log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0


class Detour:
    """The size of the next batch, and how many bad rows lie before it."""

    def __init__(self, most: int) -> None:
        self.skip = 0
        self._most = self._size = most
        self._again_at = 0.0

    @contextmanager
    def batch(self) -> Iterator[tuple[int, int]]:
        """Give how many jobs to take and how many to pass over; learn from what becomes of it."""
        if self.skip and clock.monotonic() >= self._again_at:
            self.skip = 0
        try:
            yield self._size, self.skip
        except Exception as error:
            if isinstance(error, (CeleriacError, LeadLost)) and not isinstance(error, LedgerLocked):
                raise  # not the fault of a row
            if self._size == 1:
                log.error("A job cannot be moved and is passed over for %.0f s.", AGAIN_SECONDS)
                self.skip += 1
                self._again_at = clock.monotonic() + AGAIN_SECONDS
            self._size = max(self._size // 8, 1)
            raise
        self._size = min(self._size * 8, self._most)
