"""Batches: many jobs submitted at once, all or nothing, and how far they have come together.

`submit_batch` is a move like `submit`, through which its jobs go. An Idempotency-Key of a batch
stands for the whole of it; the space in its entry keeps it apart from the keys of single jobs.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from celeriac import clock
from celeriac.access import Principal
from celeriac.errors import BatchNotFound, IdempotencyMismatch
from celeriac.jobs import Job, Receipt, Submission
from celeriac.ledger.moves.submit import submit
from celeriac.ledger.sql import Insert, Sql, as_json
from celeriac.ledger.store import Ledger, Transaction
from celeriac.ledger.summaries import SUMMARY, summary_of
from celeriac.states import is_final

_INSERT = Insert("batches", "ON CONFLICT (id) DO NOTHING", id="text", owner="text", jobs="int", created_at="int")
_FIND = Sql("SELECT id, owner, jobs, created_at FROM batches WHERE id = :id")
_COUNTS = Sql("SELECT state, COUNT(*) AS jobs FROM jobs WHERE batch = :id GROUP BY state")
_JOBS = Sql(f"SELECT {SUMMARY} FROM jobs WHERE jobs.batch = :id ORDER BY jobs.key")
_THESE = Sql(f"SELECT {SUMMARY} FROM jobs WHERE jobs.id IN ({{each}})")
# Holds a row that is there, so that on Postgres nobody else decides about the key meanwhile.
_TAKE_KEY = Sql(
    "INSERT INTO idempotency (owner, key, fingerprint, job, created_at)"
    " VALUES (:owner, :key, :fingerprint, :batch, :now)"
    " ON CONFLICT (owner, key) DO UPDATE SET job = idempotency.job RETURNING job, fingerprint"
)
_TAKE_OVER_KEY = Sql(
    "UPDATE idempotency SET fingerprint = :fingerprint, job = :batch, created_at = :now"
    " WHERE owner = :owner AND key = :key"
)


@dataclass(frozen=True, slots=True)
class BatchSubmission:
    """A request for many jobs at once; each of the submissions carries the batch's id."""

    id: str
    owner: str
    submissions: tuple[Submission, ...]
    idempotency_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """What a batch's submit answers: a receipt for each job, or, `replayed`, the id of the first batch of its key."""

    id: str
    receipts: tuple[Receipt, ...] = ()
    created_at: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """How far a batch is. `size` counts the jobs it made, `counts` those that are still in the ledger, by state."""

    id: str
    owner: str
    size: int
    counts: dict[str, int]
    created_at: int

    @property
    def done(self) -> int:
        """How many of its jobs have ended; only such are ever pruned."""
        return self.size - sum(jobs for state, jobs in self.counts.items() if not is_final(state))


def submit_batch(tx: Transaction, batches: Sequence[BatchSubmission]) -> list[BatchReceipt | Exception]:
    """Accept batches, each wholly or not at all. Answers a BatchReceipt for each, or IdempotencyMismatch."""
    answers: list[BatchReceipt | Exception | None] = []
    for place, batch in enumerate(batches):
        answers.append(_replayed(tx, batch, {other.id for other in batches[:place]}))
    fresh = [batch for batch, answer in zip(batches, answers, strict=True) if answer is None]
    receipts = iter(submit(tx, [submission for batch in fresh for submission in batch.submissions]))
    rows, now = [], clock.micros()
    for place, batch in enumerate(batches):
        if answers[place] is not None:
            continue
        accepted = []
        for receipt in (next(receipts) for _ in batch.submissions):
            if isinstance(receipt, Exception):
                raise receipt  # an id of our own that is taken: nothing of this transaction may stay
            accepted.append(receipt)
        answers[place] = BatchReceipt(batch.id, tuple(accepted), now)
        made = sum(not receipt.duplicate for receipt in accepted)
        rows.append({"id": batch.id, "owner": batch.owner, "jobs": made, "created_at": now})
    if rows:
        tx.run(_INSERT, rows=rows)
    return [answer for answer in answers if answer is not None]


def _replayed(tx: Transaction, batch: BatchSubmission, beside: Set[str]) -> BatchReceipt | Exception | None:
    """Answer a batch whose Idempotency-Key stands for one (there already, or beside it); enter the key otherwise."""
    if batch.idempotency_key is None:
        return None
    values = {
        "owner": batch.owner, "key": f"batch {batch.idempotency_key}", "fingerprint": batch.fingerprint,
        "batch": batch.id, "now": clock.micros(),
    }  # fmt: skip
    row: Any = tx.run(_TAKE_KEY, **values).first()
    if row.job == batch.id:
        return None
    if row.job not in beside and tx.run(_FIND, id=row.job).first() is None:  # pruned
        tx.run(_TAKE_OVER_KEY, **values)
        return None
    if row.fingerprint != batch.fingerprint:
        return IdempotencyMismatch(batch.idempotency_key)
    return BatchReceipt(row.job, replayed=True)


def batch(ledger: Ledger, principal: Principal, id: str) -> Batch:
    """Return how far a batch is. Raises BatchNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_FIND.on(ledger.dialect), {"id": id}).first()
        if row is None or not principal.sees(row.owner):
            raise BatchNotFound(id)
        lines = connection.execute(_COUNTS.on(ledger.dialect), {"id": id})
        counts: dict[str, int] = {line.state: line.jobs for line in lines}
    return Batch(row.id, row.owner, row.jobs, counts, row.created_at)


def jobs_of(ledger: Ledger, principal: Principal, id: str) -> list[Job]:
    """Return the jobs of a batch with previews, in the order in which they were given."""
    with ledger.reading() as connection:
        rows = connection.execute(_JOBS.on(ledger.dialect), {"id": id}).all()
    return [summary_of(row) for row in rows if principal.sees(row.owner)]


def these(ledger: Ledger, principal: Principal, ids: Sequence[str]) -> dict[str, Job]:
    """Return those of these jobs that are there, by id, with previews."""
    with ledger.reading() as connection:
        rows = connection.execute(_THESE.on(ledger.dialect), {"each": as_json(ids)}).all()
    return {row.id: summary_of(row) for row in rows if principal.sees(row.owner)}
