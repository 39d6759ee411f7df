"""The backlog: how much accepted work may wait, so that an outage of all workers cannot fill the disk.

Asked by whoever submits for somebody (web/site.py, app/sender.py), never for what a job leads to by itself. The
counts are exact, and looked at once a second at most, the first time a second after the process began.
"""

from typing import TYPE_CHECKING

from celeriac import clock
from celeriac.errors import BacklogFull, CeleriacError
from celeriac.states import State

if TYPE_CHECKING:
    from celeriac.ledger.store import Ledger

LOOK_SECONDS = 1.0


class Backlog:
    """What a process knows of the jobs that wait."""

    def __init__(self, ledger: "Ledger", most: int) -> None:
        self._ledger = ledger
        self._most = most
        self._waiting = 0
        self._look_at = clock.monotonic() + LOOK_SECONDS

    def check(self) -> None:
        """Look, if it is time, and refuse. Raises BacklogFull."""
        if self.is_due():
            self.look()
        self.refuse()

    def is_due(self) -> bool:
        """Say whether it is time to look; the next time is then a second later."""
        now = clock.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        return True

    def look(self) -> None:
        """See how many jobs wait."""
        from celeriac.ledger.counts import all_counts  # which needs the store, and that has a Backlog

        try:
            with self._ledger.reading() as connection:
                found = all_counts(connection).items()
        except CeleriacError:  # then a submit tells what is wrong
            return
        self._waiting = sum(jobs for (state, _, _), jobs in found if state in (State.QUEUED, State.SCHEDULED))

    def refuse(self) -> None:
        """Accept nothing more while too many jobs wait. Raises BacklogFull."""
        if self._waiting >= self._most:
            raise BacklogFull(self._waiting, self._most)
