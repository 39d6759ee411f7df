"""Rows become Jobs: the columns that lists show, and the payload that is read for one job.

`read.py` and `pages.py` put the columns into their statements and hand the rows over by position:
a page is decoded in a fraction of the time that names would take.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from celeriac.jobs import Failure, Job, Message, Progress
from celeriac.states import State

SUMMARY = (
    "jobs.key, jobs.id, jobs.task, jobs.state, jobs.queue, jobs.priority, jobs.args, jobs.result, jobs.error_code,"
    " jobs.error_type, jobs.error_message, jobs.progress_value, jobs.progress_total, jobs.progress_note, jobs.attempt,"
    " jobs.max_attempts, jobs.owner, jobs.tags, jobs.cost, jobs.created_at, jobs.run_at, jobs.expires_at,"
    " jobs.started_at, jobs.finished_at, jobs.cancel_requested_at, jobs.worker, jobs.parent, jobs.root, jobs.group_id,"
    " jobs.schedule, jobs.number, jobs.batch, jobs.observed"
)
PAYLOAD = (
    "payloads.headers, payloads.properties, payloads.body, payloads.result, payloads.traceback, payloads.exception,"
    " payloads.celery_state, payloads.celery_meta"
)
_PAYLOADS = PAYLOAD.count(",") + 1
_STATES = {state.value: state for state in State}
_tags = msgspec.json.Decoder(tuple[str, ...]).decode


def summary_of(row: Sequence[Any]) -> Job:
    """Return the job in a row of SUMMARY, with previews only."""
    (
        key, id, task, state, queue, priority, args, result, code, type, message, value, total, note, attempt,
        max_attempts, owner, tags, cost, created_at, run_at, expires_at, started_at, finished_at, cancel_requested_at,
        worker, parent, root, group, schedule, number, batch, observed,
    ) = row  # fmt: skip
    return Job(
        key, id, task, _STATES[state], queue, priority, args, result,
        Failure(code or "", type or "", message or "") if code or type else None,
        None if value is None else Progress(value, total, note),
        attempt, max_attempts, owner, _tags(tags) if tags else (), cost, created_at, run_at, expires_at, started_at,
        finished_at, cancel_requested_at, worker, parent, root, group, schedule, number, batch=batch,
        observed=bool(observed),
    )  # fmt: skip


def whole_of(row: Sequence[Any]) -> Job:
    """Return the job in a row of SUMMARY and PAYLOAD, with its message, result and traceback."""
    job = summary_of(row[:-_PAYLOADS])
    headers, properties, body, result, traceback, exception, celery_state, celery_meta = row[-_PAYLOADS:]
    failure = job.failure and replace(job.failure, traceback=traceback, celery=exception)
    return replace(
        job, result=result, failure=failure, message=Message(headers, properties, body),
        celery_state=celery_state, celery_meta=celery_meta,
    )  # fmt: skip
