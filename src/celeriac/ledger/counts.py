"""How many jobs there are by state, queue and task: exact at any moment, without looking at a job.

Moves write deltas in their own transactions; the keeper folds these into `counts`, the oldest
first, and adds up how many jobs ended in each minute. Lists choose their ranges by these counts
(pages.py), dashboards show them (stats.py).
"""

from typing import TypeAlias

from sqlalchemy import Connection

from celeriac import clock
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger, Transaction
from celeriac.states import is_final

# state, queue, task
Place: TypeAlias = tuple[str, str, str]

MINUTE = 60_000_000

_ALL = Sql(
    "SELECT state, queue, task, CAST(SUM(jobs) AS bigint) FROM (SELECT state, queue, task, jobs FROM counts"
    " UNION ALL SELECT state, queue, task, jobs FROM count_deltas) AS entries"
    " GROUP BY state, queue, task HAVING SUM(jobs) <> 0"
)
_ANY_DELTA = Sql("SELECT 1 FROM count_deltas LIMIT 1")
_FOLD = Sql(
    "DELETE FROM count_deltas WHERE position {once}"
    " SELECT position FROM count_deltas ORDER BY position LIMIT :most {skip_locked}{end}"
    " RETURNING state, queue, task, jobs"
)
_ADD_COUNTS = Sql(
    "INSERT INTO counts (state, queue, task, jobs) SELECT v.state, v.queue, v.task, v.jobs FROM {rows} WHERE true"
    " ON CONFLICT (state, queue, task) DO UPDATE SET jobs = counts.jobs + excluded.jobs",
    state="text", queue="text", task="text", jobs="int",
)  # fmt: skip
_ADD_ENDINGS = Sql(
    "INSERT INTO endings (minute, state, queue, task, jobs)"
    " SELECT :minute, v.state, v.queue, v.task, v.jobs FROM {rows} WHERE true"
    " ON CONFLICT (minute, state, queue, task) DO UPDATE SET jobs = endings.jobs + excluded.jobs",
    state="text", queue="text", task="text", jobs="int",
)  # fmt: skip


def all_counts(connection: Connection) -> dict[Place, int]:
    """Return how many jobs there are by state, queue and task; what has none is left out."""
    rows = connection.execute(_ALL.on(connection.dialect.name))
    return {(state, queue, task): jobs for state, queue, task, jobs in rows}


def any_delta(ledger: Ledger) -> bool:
    """Say whether there are count deltas to fold."""
    with ledger.reading() as connection:
        return connection.execute(_ANY_DELTA.on(ledger.dialect)).first() is not None


def fold_counts(tx: Transaction, most: int = 2_000) -> int:
    """Add the oldest count deltas into the counts; return how many were folded."""
    tx.flush()
    sums: dict[Place, int] = {}
    ended: dict[Place, int] = {}
    folded = 0
    for row in tx.run(_FOLD, most=most):
        place = (row.state, row.queue, row.task)
        sums[place] = sums.get(place, 0) + row.jobs
        if row.jobs > 0 and is_final(row.state):  # fewer in a final state: pruned or reopened, but they had ended
            ended[place] = ended.get(place, 0) + row.jobs
        folded += 1
    if rows := _rows(sums):
        tx.run(_ADD_COUNTS, rows=rows)
    if rows := _rows(ended):
        tx.run(_ADD_ENDINGS, rows=rows, minute=clock.micros() // MINUTE * MINUTE)
    return folded


def _rows(sums: dict[Place, int]) -> list[dict[str, object]]:
    """Return the sums as rows, always in the same order, so that two writers cannot wait for each other."""
    return [{"state": s, "queue": q, "task": t, "jobs": jobs} for (s, q, t), jobs in sorted(sums.items()) if jobs]
