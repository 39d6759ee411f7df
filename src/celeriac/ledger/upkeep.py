"""What the keeper does to jobs, in small batches: due, expired, orphaned.

Each function is one step in the caller's transaction, answers how much it did, and may be
repeated at any time; `keeper/` decides when.
"""

from typing import Any

from celeriac import clock
from celeriac.jobs import ErrorCode, Failure, Kind, Outcome
from celeriac.ledger.moves.finish import finish
from celeriac.ledger.moves.requests import cancel_waiting
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger, Transaction
from celeriac.states import State

PAUSE_MOST_SECONDS = 60

_DUE = Sql(
    "UPDATE jobs SET state = 'queued' WHERE key {once} SELECT key FROM jobs {by[jobs_due]}"
    " WHERE state IN ('scheduled', 'retrying') AND state = :state AND run_at <= :now"
    " ORDER BY run_at LIMIT :most {skip_locked}{end} RETURNING id, queue, task, observed"
)
_EXPIRED = Sql(
    "SELECT key, id, state, queue, task, number, chord, group_index FROM jobs {by[jobs_expiring]}"
    " WHERE expires_at <= :now AND expires_at IS NOT NULL AND state IN ('scheduled', 'queued', 'retrying')"
    " ORDER BY expires_at LIMIT :most OFFSET :skip {lock_row}"
)
_NEXT = Sql(
    "SELECT (SELECT MIN(run_at) FROM jobs {by[jobs_due]} WHERE state IN ('scheduled', 'retrying')) AS run_at,"
    " (SELECT MIN(expires_at) FROM jobs {by[jobs_expiring]} WHERE expires_at IS NOT NULL"
    " AND state IN ('scheduled', 'queued', 'retrying')) AS expires_at"
)
_ORPHANS = Sql(
    "SELECT key, id, attempt, task, queue, started_at, worker, rerun, observed, deaths,"
    " (SELECT pid FROM workers WHERE workers.id = jobs.worker) AS pid FROM jobs {by[jobs_running]}"
    " WHERE state = 'running' AND NOT EXISTS"
    " (SELECT 1 FROM workers WHERE workers.id = jobs.worker AND lost_at IS NULL AND stopped_at IS NULL)"
    " ORDER BY key LIMIT :most OFFSET :skip"
)


def fall_due(tx: Transaction, most: int = 500) -> int:
    """Queue the scheduled and retrying jobs whose time has come; return how many."""
    now, moved = clock.micros(), 0
    for state in (State.SCHEDULED, State.RETRYING):
        for row in tx.run(_DUE, state=state, now=now, most=most):
            tx.count(state, row.queue, row.task, -1)
            tx.count(State.QUEUED, row.queue, row.task, 1)
            if not row.observed:  # else its own broker gives it out
                tx.wake(row.queue, row.id)
            moved += 1
    return moved


def expire(tx: Transaction, most: int = 500, skip: int = 0) -> int:
    """Cancel the waiting jobs whose expiry has passed, but for the first few; return how many."""
    rows = tx.run(_EXPIRED, now=clock.micros(), most=most, skip=skip).all()
    cancel_waiting(tx, rows, ErrorCode.EXPIRED)
    return len(rows)


def next_due(ledger: Ledger) -> int | None:
    """Return the earliest moment at which a job falls due or expires, or None."""
    with ledger.reading() as connection:
        row = connection.execute(_NEXT.on(ledger.dialect)).one()
    return min((at for at in (row.run_at, row.expires_at) if at is not None), default=None)


def any_orphan(ledger: Ledger, skip: int = 0) -> bool:
    """Say whether a running job's worker is stopped, lost or unknown, but for the first few."""
    with ledger.reading() as connection:
        return connection.execute(_ORPHANS.on(ledger.dialect), {"most": 1, "skip": skip}).first() is not None


def rescue(tx: Transaction, most: int = 500, skip: int = 0) -> int:
    """Take jobs from workers that are gone, but for the first few: those not started are given back, others run again
    or fail by their policy (`finish.decide`). Return how many."""
    now = clock.micros()
    rows = tx.run(_ORPHANS, most=most, skip=skip).all()
    outcomes = []
    for row in rows:
        started = row.started_at is not None
        why = f"The worker {row.worker.split('/')[0]} that ran it was lost." if row.worker else "Its worker was lost."
        # Chance takes a job's worker once: it runs again at once. One that loses another may be the cause.
        pause = min(2**row.deaths, PAUSE_MOST_SECONDS) if started and row.deaths else 0
        if row.observed:
            outcomes.append(_lost_sight(row, why, now))
            continue
        outcomes.append(
            Outcome(
                row.key, row.id, row.attempt, row.task, row.queue, State.RETRYING if pause else State.QUEUED, now,
                Kind.RESCUED if started else Kind.GIVEN_BACK,
                data={"attempt": row.attempt, "worker": row.worker} | ({"pid": row.pid} if started else {}),
                death=started, run_at=now + pause * 1_000_000 if pause else None,
                failure=Failure(ErrorCode.WORKER_LOST, "WorkerLost", why) if started else None,
            )
        )  # fmt: skip
    finish(tx, outcomes)
    return len(rows)


def _lost_sight(row: Any, why: str, now: int) -> Outcome:
    """What becomes of an observed job whose worker was lost: its broker gives it out again, if it was promised to."""
    data = {"attempt": row.attempt, "worker": row.worker, "lost": why}
    attempt = (row.key, row.id, row.attempt, row.task, row.queue)
    if row.rerun:
        return Outcome(*attempt, State.QUEUED, now, Kind.GIVEN_BACK, data, run_at=now)
    return Outcome(
        *attempt, State.FAILED, now, Kind.FAILED, {**data, "code": ErrorCode.WORKER_LOST},
        failure=Failure(ErrorCode.WORKER_LOST, "WorkerLost", why),
    )  # fmt: skip
