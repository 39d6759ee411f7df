"""What goes when it is old: jobs that ended, with all that belongs to them, and the events of others.

The keeper's pruner asks here what is old, which holds up nobody, and then deletes a few at a time:
on SQLite everybody else waits meanwhile. A job that was opened again between the two stays.
What is not a job's goes in stale.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger, Transaction

SECOND = 1_000_000

# In the order of their ends, so that one walk meets each job once.
_OLD = Sql(
    "SELECT finished_at, key FROM jobs {by[jobs_finished]} WHERE finished_at IS NOT NULL AND finished_at < :before"
    " AND finished_at >= :at AND (finished_at > :at OR key > :key) ORDER BY finished_at, key LIMIT :most"
)
_DELETE_JOBS = Sql(
    "DELETE FROM jobs WHERE key {once} {each_int} {end} AND finished_at < :before AND NOT EXISTS"
    " (SELECT 1 FROM chords WHERE chords.id = jobs.chord AND chords.fired_at IS NULL)"
    " RETURNING key, state, queue, task, chord"
)
_DELETE_BELONGINGS = [
    Sql("DELETE FROM payloads WHERE job {once} {each_int} {end}"),
    Sql("DELETE FROM tags WHERE job {once} {each_int} {end}"),
    Sql("DELETE FROM events WHERE job {once} {each_int} {end}"),
]
_DELETE_PARTS = Sql("DELETE FROM chord_parts WHERE chord IN ({each})")
_DELETE_EVENTS = Sql(
    "DELETE FROM events WHERE job {once} SELECT key FROM jobs {by_key} WHERE key IN ({each_int})"
    " AND finished_at < :before {end}"
)
_FIRST_END = Sql("SELECT MIN(finished_at) FROM jobs {by[jobs_finished]} WHERE finished_at IS NOT NULL")
_HAS_EVENTS = Sql(
    "SELECT EXISTS (SELECT 1 FROM events WHERE events.job = jobs.key) FROM jobs {by[jobs_finished]}"
    " WHERE finished_at IS NOT NULL AND finished_at >= :at ORDER BY finished_at LIMIT 1"
)


@dataclass(frozen=True, slots=True, order=True)
class Ended:
    """When a job ended, and which: a place in the walk through all that did."""

    at: int = 0
    key: int = 0


def old_jobs(ledger: Ledger, after: Ended, before: int, most: int) -> list[Ended]:
    """Return the jobs that ended before a moment, the oldest first, going on after a place."""
    with ledger.reading() as connection:
        values = {"at": after.at, "key": after.key, "before": before, "most": most}
        return [Ended(at, key) for at, key in connection.execute(_OLD.on(ledger.dialect), values)]


def first_with_events(ledger: Ledger, before: int) -> Ended:
    """Return a place before which, but for a second, no job that ended has events any more.

    Events go in the order of the ends, so halving finds where that came to; a new keeper begins there.
    """
    with ledger.reading() as connection:
        low = connection.execute(_FIRST_END.on(ledger.dialect)).scalar() or before
        high = before
        while high - low > SECOND:
            middle = (low + high) // 2
            if connection.execute(_HAS_EVENTS.on(ledger.dialect), {"at": middle}).scalar():
                high = middle
            else:
                low = middle
    return Ended(low - SECOND)


def prune_jobs(tx: Transaction, keys: Sequence[int], before: int) -> int:
    """Delete those of these jobs that ended before a moment, with all that belongs to them; return how many.

    Members of a chord that has not fired are kept.
    """
    rows = tx.run(_DELETE_JOBS, each=list(keys), before=before).all()
    if rows:
        gone = [row.key for row in rows]
        for statement in _DELETE_BELONGINGS:
            tx.run(statement, each=gone)
        tx.run(_DELETE_PARTS, each=sorted({row.chord for row in rows if row.chord}))
        for row in rows:
            tx.count(row.state, row.queue, row.task, -1)
    return len(rows)


def prune_events(tx: Transaction, keys: Sequence[int], before: int) -> None:
    """Delete the events of those of these jobs that ended before a moment."""
    tx.run(_DELETE_EVENTS, each=list(keys), before=before)
