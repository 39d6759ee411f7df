"""What the keeper does to jobs, in small batches: due, expired, orphaned, old.

Each function is one step in the caller's transaction, answers how much it did, and may be
repeated at any time; `keeper/` decides when.
"""

from celeriac import clock
from celeriac.jobs import ErrorCode, Failure, Kind, Outcome
from celeriac.ledger.moves.finish import finish
from celeriac.ledger.moves.requests import cancel_waiting
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger, Transaction
from celeriac.states import State

_DUE = Sql(
    "UPDATE jobs SET state = 'queued' WHERE key IN (SELECT key FROM jobs {by[jobs_due]}"
    " WHERE state IN ('scheduled', 'retrying') AND state = :state AND run_at <= :now"
    " ORDER BY run_at LIMIT :most {skip_locked}) RETURNING queue, task"
)
_EXPIRED = Sql(
    "SELECT key, id, state, queue, task, number, chord, group_index FROM jobs {by[jobs_expiring]}"
    " WHERE expires_at <= :now AND expires_at IS NOT NULL AND state IN ('scheduled', 'queued', 'retrying')"
    " ORDER BY expires_at LIMIT :most {lock_row}"
)
_NEXT = Sql(
    "SELECT (SELECT MIN(run_at) FROM jobs {by[jobs_due]} WHERE state IN ('scheduled', 'retrying')) AS run_at,"
    " (SELECT MIN(expires_at) FROM jobs {by[jobs_expiring]} WHERE expires_at IS NOT NULL"
    " AND state IN ('scheduled', 'queued', 'retrying')) AS expires_at"
)
_ORPHANS = Sql(
    "SELECT key, id, attempt, task, queue, started_at, worker FROM jobs {by[jobs_running]}"
    " WHERE state = 'running' AND NOT EXISTS"
    " (SELECT 1 FROM workers WHERE workers.id = jobs.worker AND lost_at IS NULL AND stopped_at IS NULL)"
    " ORDER BY key LIMIT :most"
)
_OLD_JOBS = Sql(
    "SELECT key, id, state, queue, task, chord FROM jobs {by[jobs_finished]}"
    " WHERE finished_at IS NOT NULL AND finished_at < :before"
    " AND NOT EXISTS (SELECT 1 FROM chords WHERE chords.id = jobs.chord AND fired_at IS NULL)"
    " ORDER BY finished_at LIMIT :most"
)
_ENDED = Sql(
    "SELECT key, finished_at FROM jobs {by[jobs_finished]} WHERE finished_at IS NOT NULL"
    " AND (finished_at, key) > (:at, :key)"
    " AND finished_at < :before ORDER BY finished_at, key LIMIT :most"
)
_DELETE_BY_KEY = [
    Sql("DELETE FROM jobs WHERE key IN ({each_int})"),
    Sql("DELETE FROM payloads WHERE job IN ({each_int})"),
    Sql("DELETE FROM tags WHERE job IN ({each_int})"),
]
_DELETE_EVENTS = Sql("DELETE FROM events WHERE job IN ({each_int})")
_DELETE_PARTS = Sql("DELETE FROM chord_parts WHERE chord IN ({each})")
_DELETE_STALE = [
    Sql("DELETE FROM chords WHERE fired_at IS NOT NULL AND fired_at < :before"),
    Sql("DELETE FROM idempotency WHERE created_at < :before"),
    Sql("DELETE FROM workers WHERE COALESCE(stopped_at, lost_at) < :before"),
    Sql("DELETE FROM tickets WHERE expires_at < :before"),
]
_DELETE_MAIL = Sql("DELETE FROM mail WHERE at < :before")
_ANY_DELTA = Sql("SELECT 1 FROM count_deltas LIMIT 1")
_FOLD = Sql("DELETE FROM count_deltas RETURNING state, queue, task, jobs")
_ADD_COUNTS = Sql(
    "INSERT INTO counts (state, queue, task, jobs) SELECT v.state, v.queue, v.task, v.jobs FROM {rows} WHERE true"
    " ON CONFLICT (state, queue, task) DO UPDATE SET jobs = counts.jobs + excluded.jobs",
    state="text", queue="text", task="text", jobs="int",
)  # fmt: skip


def fall_due(tx: Transaction, most: int = 500) -> int:
    """Queue the scheduled and retrying jobs whose time has come; return how many."""
    now, moved = clock.micros(), 0
    for state in (State.SCHEDULED, State.RETRYING):
        for row in tx.run(_DUE, state=state, now=now, most=most):
            tx.count(state, row.queue, row.task, -1)
            tx.count(State.QUEUED, row.queue, row.task, 1)
            tx.wakes.add(row.queue)
            moved += 1
    return moved


def expire(tx: Transaction, most: int = 500) -> int:
    """Cancel the waiting jobs whose expiry has passed; return how many."""
    rows = tx.run(_EXPIRED, now=clock.micros(), most=most).all()
    cancel_waiting(tx, rows, ErrorCode.EXPIRED)
    return len(rows)


def next_due(ledger: Ledger) -> int | None:
    """Return the earliest moment at which a job falls due or expires, or None."""
    with ledger.reading() as connection:
        row = connection.execute(_NEXT.on(ledger.dialect)).one()
    return min((at for at in (row.run_at, row.expires_at) if at is not None), default=None)


def any_orphan(ledger: Ledger) -> bool:
    """Say whether a running job's worker is stopped, lost or unknown."""
    with ledger.reading() as connection:
        return connection.execute(_ORPHANS.on(ledger.dialect), {"most": 1}).first() is not None


def rescue(tx: Transaction, most: int = 500) -> int:
    """Take jobs from workers that are gone: unstarted ones are given back, started ones run again
    or fail by their policy (`finish.decide`). Return how many."""
    now = clock.micros()
    rows = tx.run(_ORPHANS, most=most).all()
    outcomes = []
    for row in rows:
        started = row.started_at is not None
        why = f"The worker {row.worker.split('/')[0]} that ran it was lost." if row.worker else "Its worker was lost."
        outcomes.append(
            Outcome(
                row.key, row.id, row.attempt, row.task, row.queue, State.QUEUED, now,
                Kind.RESCUED if started else Kind.GIVEN_BACK,
                data={"attempt": row.attempt, "worker": row.worker}, death=started,
                failure=Failure(ErrorCode.WORKER_LOST, "WorkerLost", why) if started else None,
            )
        )  # fmt: skip
    finish(tx, outcomes)
    return len(rows)


def prune_jobs(tx: Transaction, before: int, most: int = 500) -> int:
    """Delete jobs that ended before a moment, with all that belongs to them; return how many.

    Members of a chord that has not fired are kept.
    """
    rows = tx.run(_OLD_JOBS, before=before, most=most).all()
    if rows:
        keys = [row.key for row in rows]
        for statement in (*_DELETE_BY_KEY, _DELETE_EVENTS):
            tx.run(statement, each=keys)
        tx.run(_DELETE_PARTS, each=sorted({row.chord for row in rows if row.chord}))
        for row in rows:
            tx.count(row.state, row.queue, row.task, -1)
    return len(rows)


def prune_events(tx: Transaction, after: tuple[int, int], before: int, most: int = 500) -> tuple[int, int] | None:
    """Delete the events of jobs that ended before a moment, going on after a mark.

    Returns the next mark (when and which job ended last), or None when all is done.
    """
    rows = tx.run(_ENDED, at=after[0], key=after[1], before=before, most=most).all()
    if not rows:
        return None
    tx.run(_DELETE_EVENTS, each=[row.key for row in rows])
    return rows[-1].finished_at, rows[-1].key


def prune_rest(tx: Transaction, before: int, mail_before: int) -> None:
    """Delete what nothing refers to any more: fired chords, old keys, gone workers, unread mail."""
    for statement in _DELETE_STALE:
        tx.run(statement, before=before)
    tx.run(_DELETE_MAIL, before=mail_before)


def any_delta(ledger: Ledger) -> bool:
    """Say whether there are count deltas to fold."""
    with ledger.reading() as connection:
        return connection.execute(_ANY_DELTA.on(ledger.dialect)).first() is not None


def fold_counts(tx: Transaction) -> int:
    """Add the count deltas into the counts; return how many were folded."""
    tx.flush()
    sums: dict[tuple[str, str, str], int] = {}
    folded = 0
    for row in tx.run(_FOLD):
        place = (row.state, row.queue, row.task)
        sums[place] = sums.get(place, 0) + row.jobs
        folded += 1
    rows = [{"state": s, "queue": q, "task": t, "jobs": jobs} for (s, q, t), jobs in sums.items() if jobs]
    if rows:
        tx.run(_ADD_COUNTS, rows=rows)
    return folded
