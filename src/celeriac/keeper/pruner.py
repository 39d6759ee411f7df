"""Deletes what is old, in batches so small that no submit waits for them.

Jobs go `job_days` after their end, their events after `event_days`; chords, keys, mail and
gone workers go with them. Members of a chord that has not fired are kept.
"""

from celeriac import clock
from celeriac.keeper.leader import Leader
from celeriac.ledger import upkeep

LOOK_SECONDS = 60.0
PAUSE_SECONDS = 0.05
BATCH = 500
DAY = 86_400_000_000
MAIL_AGE = 3_600_000_000


class Pruner:
    """The duty of forgetting."""

    def __init__(self, leader: Leader, job_days: float, event_days: float) -> None:
        self._leader = leader
        self._job_age = int(job_days * DAY)
        self._event_age = int(event_days * DAY)
        self._events_after = (0, 0)

    def tick(self) -> float:
        """Delete one batch of each kind; return the seconds until the next, soon while there is more."""
        now = clock.micros()
        with self._leader.transaction() as tx:
            jobs = upkeep.prune_jobs(tx, now - self._job_age, BATCH)
            mark = upkeep.prune_events(tx, self._events_after, now - self._event_age, BATCH)
            if mark is None and jobs < BATCH:
                upkeep.prune_rest(tx, now - self._job_age, now - MAIL_AGE)
        if mark is not None:
            self._events_after = mark
        return PAUSE_SECONDS if jobs >= BATCH or mark is not None else LOOK_SECONDS
