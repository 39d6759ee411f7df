"""Deletes what is old, in steps so short that no submit waits for them, and rests a long while after each.

What is deleted is written to the disk, twice, and a disk that is busy with it makes every commit wait. So only a
tenth of the time is spent deleting.

Jobs go `job_days` after their end, their events after `event_days`; what belonged to them goes with
them, and what nothing refers to any more when no job is left. Members of a chord that has not fired are kept.
"""

from celeriac import clock
from celeriac.keeper.leader import Leader
from celeriac.ledger import pruning, stale
from celeriac.ledger.pruning import Ended

LOOK_SECONDS = 60.0
PAUSE_SECONDS = 0.02
REST = 9  # times as long as the step took
STEP_SECONDS = {"sqlite": 0.003, "postgresql": 0.2}  # for a transaction; on SQLite all others wait so long, or twice
BATCH = 50  # jobs to begin with
BATCH_MIN, BATCH_MAX = 5, 500
DAY = 86_400_000_000
MAIL_AGE = 3_600_000_000


class Pruner:
    """The duty of forgetting."""

    def __init__(self, leader: Leader, job_days: float, event_days: float) -> None:
        self._leader = leader
        self._job_age = int(job_days * DAY)
        self._event_age = int(event_days * DAY)
        self._batch = BATCH
        self._took = 0.0
        self._step_seconds = STEP_SECONDS[leader.ledger.dialect]
        self._jobs_after = Ended()
        self._events_after: Ended | None = None
        self._marks: dict[stale.Walk, int | str] = {walk: walk.start for walk in stale.WALKS}

    def tick(self) -> float:
        """Delete a little of what is old; return the seconds until the next time, soon while there is more."""
        now = clock.micros()
        if self._prune_jobs(now - self._job_age) or self._prune_events(now - self._event_age):
            return max(PAUSE_SECONDS, REST * self._took)
        return PAUSE_SECONDS if self._sweep(now) else LOOK_SECONDS

    def _prune_jobs(self, before: int) -> bool:
        """Delete a batch of old jobs; say whether there may be more."""
        old = pruning.old_jobs(self._leader.ledger, self._jobs_after, before, self._batch)
        if not old:
            self._jobs_after = Ended()
            return False
        with self._leader.transaction() as tx:
            began = clock.monotonic()
            pruning.prune_jobs(tx, [ended.key for ended in old], before)
        self._adapt(clock.monotonic() - began)
        self._jobs_after = old[-1]  # not the start: members of a chord that has not fired stay behind
        return True

    def _prune_events(self, before: int) -> bool:
        """Delete the events of a batch of old jobs; say whether there may be more."""
        ledger = self._leader.ledger
        after = self._events_after or pruning.first_with_events(ledger, before)
        old = pruning.old_jobs(ledger, after, before, self._batch)
        self._events_after = old[-1] if old else after
        if not old:
            return False
        with self._leader.transaction() as tx:
            began = clock.monotonic()
            pruning.prune_events(tx, [ended.key for ended in old], before)
        self._adapt(clock.monotonic() - began)
        return True

    def _sweep(self, now: int) -> bool:
        """Delete what nothing refers to any more; say whether there is more."""
        before = now - self._job_age
        found = False
        for walk, mark in self._marks.items():
            rows, next_mark = stale.stale(self._leader.ledger, walk, mark, before, now)
            if rows:
                with self._leader.transaction() as tx:
                    stale.drop(tx, walk, rows, before, now)
            self._marks[walk] = next_mark
            found |= bool(rows) and next_mark != walk.start
        with self._leader.transaction() as tx:
            return stale.drop_heads(tx, before, now - MAIL_AGE, now, self._batch) >= self._batch or found

    def _adapt(self, seconds: float) -> None:
        """Take fewer jobs at a time when a step took too long, more when it was short."""
        self._took = seconds
        wanted = self._batch * 2 if seconds < self._step_seconds / 2 else self._batch
        if seconds > self._step_seconds:
            wanted = int(self._batch * self._step_seconds / seconds)
        self._batch = min(max(wanted, BATCH_MIN), BATCH_MAX)
