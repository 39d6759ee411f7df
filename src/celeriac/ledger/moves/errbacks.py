"""Error callbacks of jobs that fail where none of the app's code is at hand.

The body of a chord whose member failed, and a job that lost its workers, end inside a transaction. The same
transaction submits `celery.errbacks` (app/errbacks.py), a job that calls the callbacks in a worker.
"""

from collections.abc import Iterable, Mapping

from celeriac.jobs import ErrorCode, Failure, Message, Submission, new_id, parts_of
from celeriac.ledger.moves.submit import submit
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State

_TASK = "celery.errbacks"
_UNSEEN = (ErrorCode.WORKER_LOST, ErrorCode.QUARANTINED)  # by anybody who has the app's code
_LOST = Sql(
    "SELECT jobs.id, jobs.queue, jobs.owner, jobs.root, payloads.body"
    " FROM payloads JOIN jobs ON jobs.key = payloads.job WHERE payloads.job IN ({each_int})"
)


def call_for_lost(tx: Transaction, ended: Mapping[int, tuple[State, Failure | None]]) -> None:
    """Have the error callbacks called of those of these jobs (by key) that failed with their workers."""
    lost = [key for key, (_, failure) in ended.items() if failure is not None and failure.code in _UNSEEN]
    if lost:
        rows = tx.run(_LOST, each=lost).all()
        _submit(tx, [_call(row.id, row.queue, row.owner, row.root) for row in rows if _has_errbacks(row.body)])


def call_for_given_up(tx: Transaction, jobs: Iterable[Submission]) -> None:
    """Have the error callbacks called of chords' bodies that are recorded as failed."""
    _submit(tx, [_call(job.id, job.queue, job.owner, job.root) for job in jobs if _has_errbacks(job.message.body)])


def _submit(tx: Transaction, calls: list[Submission]) -> None:
    if calls:
        submit(tx, calls)


def _has_errbacks(body: str) -> bool:
    _, _, canvas = parts_of(body)
    return bool(canvas.get("errbacks"))


def _call(job: str, queue: str, owner: str, root: str | None) -> Submission:
    id = new_id()
    headers = {"lang": "py", "task": _TASK, "id": id, "root_id": root or job, "parent_id": job, "retries": 0}
    return Submission(
        id=id, task=_TASK, queue=queue, owner=owner, parent=job, root=root or job, args=as_json({"id": job}),
        message=Message(as_json(headers), as_json({"correlation_id": id}), as_json([[job], {}, {}])),
    )  # fmt: skip
