"""The shapes of the API's answers: how jobs, events, workers and tasks look as JSON.

They encode straight to bytes, and the OpenAPI document takes its schemas from them. Field
names are the vocabulary's; times are RFC 3339 in UTC. Called by the handlers.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from celeriac.app import TaskInfo, Tasks
from celeriac.clock import rfc3339
from celeriac.jobs import Event, Failure, Job, Progress, Receipt, Submission, Worker
from celeriac.web.api.plain import NULL, plain


class JobError(msgspec.Struct):
    """Why a job failed or was cancelled."""

    code: str
    type: str
    message: str
    traceback: str | None


class JobProgress(msgspec.Struct):
    """How far a running job is."""

    value: float
    total: float | None
    note: str | None


class JobShape(msgspec.Struct):
    """A job. In lists `args` and `result` are previews of at most 1 KiB."""

    id: Annotated[str, Meta(description="Its id, also that of the Celery task.")]
    task: str
    state: Annotated[str, Meta(description="scheduled, queued, running, retrying; then succeeded, failed, cancelled.")]
    queue: str
    priority: Annotated[int, Meta(description="0 to 9, higher first.")]
    args: Annotated[
        msgspec.Raw, Meta(description='By name if they fit the signature, else `{"args": […], "kwargs": {…}}`.')
    ]
    result: Annotated[msgspec.Raw, Meta(description="What the task returned.")]
    error: Annotated[JobError | None, Meta(description="Why it failed or was cancelled.")]
    progress: JobProgress | None
    attempt: Annotated[int, Meta(description="How often it was claimed.")]
    max_attempts: Annotated[int | None, Meta(description="How often it may be executed at most.")]
    owner: Annotated[str, Meta(description="Who submitted it.")]
    tags: tuple[str, ...]
    cost: Annotated[int | None, Meta(description="The measured size of its input.")]
    created_at: str | None
    run_at: Annotated[str | None, Meta(description="Not before this time.")]
    expires_at: Annotated[str | None, Meta(description="Cancelled if it has not started by then.")]
    started_at: Annotated[str | None, Meta(description="When the code of its newest attempt began.")]
    finished_at: str | None
    worker: Annotated[str | None, Meta(description="Who runs it, or ran it last.")]
    parent: Annotated[str | None, Meta(description="The job that submitted it.")]
    root: Annotated[str | None, Meta(description="The job that began the whole canvas.")]
    group: Annotated[str | None, Meta(description="The group it is a member of.")]
    schedule: str | None
    batch: Annotated[str | None, Meta(description="The batch it was submitted in.")]
    observed: Annotated[
        bool, Meta(description="Whether its own broker decides about it, and the ledger only looks on.")
    ]
    number: Annotated[int, Meta(description="Number of its newest event.")]


class CancelledShape(JobShape):
    """A job and what was given up with it: links behind it in its chain, the body of its chord."""

    also: Annotated[list[str], Meta(description="Jobs that were given up with it, 100 at most.")]
    also_count: Annotated[int, Meta(description="How many there are.")]
    cooperative: Annotated[
        bool, Meta(description="Whether it runs in a pool that ends it only where it reports progress.")
    ]


class JobPage(msgspec.Struct):
    """A page of jobs, newest first; `after` leads to the next one and is null on the last."""

    jobs: list[JobShape]
    after: str | None


class EventShape(msgspec.Struct):
    """One line of a job's history."""

    job: str
    number: int
    at: str | None
    kind: str
    data: msgspec.Raw


class EventPage(msgspec.Struct):
    """Events in order; `after` leads to the next ones and is null when there are no more yet."""

    events: list[EventShape]
    after: int | None


class WorkerShape(msgspec.Struct):
    """A worker node; `running` counts the jobs it holds."""

    id: str
    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    pool: str
    cooperative: Annotated[
        bool, Meta(description="Whether cancels and time limits reach a running job only where it reports progress.")
    ]
    online: bool
    stuck: Annotated[bool, Meta(description="Whether it does nothing though there are jobs that it could run.")]
    running: int
    started_at: str | None
    beat_at: str | None
    version: str


class WorkerPage(msgspec.Struct):
    """The workers, the living first."""

    workers: list[WorkerShape]


class TaskShape(msgspec.Struct):
    """A task that can be submitted; `schema` is the JSON schema of its arguments."""

    name: str
    description: str
    queues: tuple[str, ...]
    schema: dict[str, Any]


class TaskPage(msgspec.Struct):
    """Every task."""

    tasks: list[TaskShape]


def job_shape(job: Job, tasks: Tasks) -> JobShape:
    """Return a job as the API shows it: whole if it was read whole, else with previews."""
    args = job.args
    if job.message is not None:
        args = tasks.arguments(job.task, job.message, args).decode("utf-8", "surrogatepass")
    return JobShape(
        id=job.id, task=job.task, state=job.state, queue=job.queue, priority=job.priority, args=plain(args),
        result=plain(job.result), error=_error(job.failure), progress=_progress(job.progress), attempt=job.attempt,
        max_attempts=job.max_attempts, owner=job.owner, tags=job.tags, cost=job.cost,
        created_at=rfc3339(job.created_at), run_at=rfc3339(job.run_at), expires_at=rfc3339(job.expires_at),
        started_at=rfc3339(job.started_at), finished_at=rfc3339(job.finished_at),
        worker=job.worker.rpartition("/")[0] or job.worker if job.worker else None, parent=job.parent, root=job.root,
        group=job.group, schedule=job.schedule, batch=job.batch, observed=job.observed,
        number=job.number,
    )  # fmt: skip


def fresh_shape(submission: Submission, receipt: Receipt, tasks: Tasks) -> JobShape:
    """Return a job that was accepted just now, without reading it back; equal to what a read would show."""
    args = tasks.arguments(submission.task, submission.message, submission.args).decode()
    return JobShape(
        id=receipt.id, task=submission.task, state=receipt.state, queue=submission.queue, priority=submission.priority,
        args=plain(args), result=NULL, error=None, progress=None, attempt=0, max_attempts=submission.max_attempts,
        owner=submission.owner, tags=submission.tags, cost=submission.cost, created_at=rfc3339(receipt.created_at),
        run_at=rfc3339(submission.run_at), expires_at=rfc3339(submission.expires_at), started_at=None,
        finished_at=None, worker=None, parent=submission.parent, root=submission.root, group=submission.group,
        schedule=submission.schedule, batch=submission.batch, observed=False, number=1,
    )  # fmt: skip


def event_shape(event: Event) -> EventShape:
    """Return an event as the API shows it."""
    return EventShape(event.job, event.number, rfc3339(event.at), event.kind, plain(event.data))


def worker_shape(worker: Worker) -> WorkerShape:
    """Return a worker as the API shows it."""
    return WorkerShape(
        worker.id, worker.name, worker.host, worker.pid, worker.queues, worker.concurrency, worker.pool,
        worker.cooperative, worker.online, worker.stuck_at is not None, worker.running, rfc3339(worker.started_at),
        rfc3339(worker.beat_at), worker.version,
    )  # fmt: skip


def task_shape(task: TaskInfo) -> TaskShape:
    """Return a task as the API shows it."""
    return TaskShape(task.name, task.description, task.queues, task.schema)


def _error(failure: Failure | None) -> JobError | None:
    if failure is None:
        return None
    return JobError(failure.code, failure.type, failure.message, failure.traceback)


def _progress(progress: Progress | None) -> JobProgress | None:
    return None if progress is None else JobProgress(progress.value, progress.total, progress.note)
