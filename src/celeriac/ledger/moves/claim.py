"""Claim: a worker node takes the best jobs of a queue, and only the claim's holder may end them.

Each claim raises `attempt`, the fencing token of everything the worker writes later. What is
not queued, expired, paused or of an unknown task is left alone. Next: finish.py.
"""

from collections.abc import Sequence
from typing import Any

from celeriac import clock
from celeriac.jobs import Claimed, ClaimRequest, Kind, Message
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State

_CLAIM = Sql(
    "UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = :worker, claimed_at = :now,"
    " started_at = NULL, number = number + 1"
    " WHERE key {once}"
    "  SELECT key FROM jobs {by[jobs_ready]} WHERE state = 'queued' AND queue = :queue AND task IN ({each})"
    "  AND observed = 0 AND (expires_at IS NULL OR expires_at > :now)"
    "  AND NOT EXISTS (SELECT 1 FROM workers WHERE id = :worker AND COALESCE(lost_at, stopped_at) IS NOT NULL)"
    "  AND NOT EXISTS (SELECT 1 FROM queues WHERE name = :queue AND paused_at IS NOT NULL)"
    "  ORDER BY priority DESC, key LIMIT :most {skip_locked}{end}"
    " RETURNING key, id, task, queue, owner, attempt, deaths, priority, number"
)
_MESSAGES = Sql("SELECT job, headers, properties, body FROM payloads WHERE job IN ({each_int})")

_NONE = Message("{}", "{}", "")  # cannot be read: such a job fails, and never holds up its queue


def claim(tx: Transaction, requests: Sequence[ClaimRequest]) -> list[list[Claimed] | Exception]:
    """Give each request up to `limit` jobs, best first: by priority, then by age.

    The queues of a request are asked in its order until the limit is reached.
    """
    return [_claim(tx, request) for request in requests]


def _claim(tx: Transaction, request: ClaimRequest) -> list[Claimed]:
    now = clock.micros()
    taken: list[Any] = []
    for tasks, limit in (*((as_json([task]), 1) for task in request.one_each), (request.tasks, request.limit)):
        most = min(limit, request.limit - len(taken))
        for queue in request.queues:
            if most <= 0:
                break
            rows = tx.run(_CLAIM, each=tasks, worker=request.worker, queue=queue, now=now, most=most).all()
            taken += sorted(rows, key=lambda row: (-row.priority, row.key))
            most -= len(rows)
    if not taken:
        return []
    keys = [row.key for row in taken]
    payloads = tx.run(_MESSAGES, each=keys)
    messages = {row.job: Message(row.headers, row.properties, row.body) for row in payloads}
    for row in taken:
        tx.record(row.key, row.number, now, Kind.CLAIMED, {"worker": request.worker, "attempt": row.attempt})
        tx.count(State.QUEUED, row.queue, row.task, -1)
        tx.count(State.RUNNING, row.queue, row.task, 1)
    return [
        Claimed(row.key, row.id, row.task, row.queue, row.owner, row.attempt, row.deaths, messages.get(row.key, _NONE))
        for row in taken
    ]
