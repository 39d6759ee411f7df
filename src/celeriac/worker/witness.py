"""What is seen of an attempt where it runs, by Celery's own signals: in a child, a thread, or the main process.

Sightings go to the Watch of the worker (observe.py), from a child over the pool's own pipe. What only
the main process knows (revoked, child lost, time limit, unknown task) its signals tell. Celery logs
what a receiver raises and goes on, so nothing here can fail a job.
"""

import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import signals
from celery import states as celery_states
from celery.exceptions import Reject, Retry

from celeriac import clock, current
from celeriac.app.observer import json_text, observed
from celeriac.jobs import ErrorCode, Failure, Kind, Submission, preview
from celeriac.ledger import Sighting
from celeriac.states import State
from celeriac.worker.failures import failure_of
from celeriac.worker.reports import Reports

RESULT_CHARACTERS = 256 * 1024
REPLACED = "Replaced by new task"  # what celery.Task.replace raises Ignore with


class Execution:
    """One execution of a task that is under way in this thread."""

    def __init__(self, task: Any, id: str) -> None:
        self.id = id
        self.began = clock.micros()
        self.task = task
        ignore = task.request.ignore_result
        self._ignores_result = task.ignore_result if ignore is None else ignore
        self.failure: Failure | None = None
        self.again: Submission | None = None  # its own id, sent again: a retry or a replacement
        self.reports = Reports({"key": 0, "attempt": 0}, None, self._report)
        self.unplug = current.plug(self.reports)

    def _report(self, frame: tuple[Any, ...]) -> None:
        _, _, at, kind, data = frame
        tell(Sighting(self.id, at, Kind(kind), execution=self.began, data=data))

    def start(self, args: Any, kwargs: Any) -> None:
        """Tell that user code begins."""
        request, task = self.task.request, self.task
        headers = {**vars(request), "id": self.id, "task": task.name}
        delivery = request.delivery_info or {}
        entered = observed(
            task.app, headers, args or (), kwargs or {}, delivery.get("routing_key") or "", delivery.get("priority")
        )
        tell(Sighting(
            self.id, self.began, Kind.STARTED, execution=self.began, submission=replace(entered, run_at=None),
            rerun=bool(task.acks_late),
        ))  # fmt: skip

    def end(self, state: str | None, value: Any) -> None:
        """Tell how it ended."""
        self.reports.flush()
        self.unplug()
        if (seen := self._ended(state, value)) is not None:
            tell(replace(seen, execution=self.began))

    def _ended(self, state: str | None, value: Any) -> Sighting | None:
        now, again = clock.micros(), self.again
        if state == celery_states.SUCCESS:
            text = json_text(None if self._ignores_result else value)
            shown = text if len(text) <= 512 else preview(value) if len(text) <= RESULT_CHARACTERS else preview(text)
            result = text if len(text) <= RESULT_CHARACTERS else shown
            return Sighting(self.id, now, Kind.SUCCEEDED, State.SUCCEEDED, result=result, preview=shown)
        if state == celery_states.RETRY:
            run_at = again.run_at if again else None
            failure = self.failure or Failure(ErrorCode.RAISED, "Retry", "The task asked to be run again.")
            data = {"code": failure.code, "type": failure.type, "message": failure.message[:500]}
            return Sighting(self.id, now, Kind.RETRYING, State.RETRYING, data=data, run_at=run_at, failure=failure)
        if state == celery_states.FAILURE:
            return failed(self.id, self.failure or Failure(ErrorCode.RAISED, "Exception", str(value)))
        if state == celery_states.REJECTED and isinstance(value, Reject):
            if value.requeue:
                return Sighting(self.id, now, Kind.GIVEN_BACK, State.QUEUED)
            return failed(self.id, Failure(ErrorCode.RAISED, "Reject", str(value.reason)))
        if state == celery_states.IGNORED:
            if again is not None or str(value) == REPLACED:
                task = again.task if again else None
                return Sighting(self.id, now, Kind.RETRYING, State.QUEUED, data={"replaced": True}, task=task)
            return Sighting(self.id, now, Kind.SUCCEEDED, State.SUCCEEDED, data={"ignored": True})
        return None  # it was cut off: the main process tells


_execution: ContextVar[Execution | None] = ContextVar("celeriac_execution", default=None)


@dataclass(frozen=True, slots=True)
class Way:
    """How this process tells; a forked child has inherited its parent's and must not use it."""

    send: Callable[[Sighting], None]
    runs: Callable[[str], bool] | None  # known in the main process: whether a job runs in this worker
    pid: int


_way: Way | None = None


def tell_by(send: Callable[[Sighting], None], runs: Callable[[str], bool] | None = None) -> None:
    """Tell what this process sees in this way from now on."""
    global _way
    _way = Way(send, runs, os.getpid())
    for signal, receiver in RECEIVERS.items():
        signal.connect(receiver, weak=False, dispatch_uid=f"celeriac:{receiver.__name__}")


def tell(sighting: Sighting) -> None:
    """Bring a sighting to the main process of this worker."""
    if _way is not None and _way.pid == os.getpid():
        _way.send(sighting)


def _in_main() -> bool:
    return _way is not None and _way.runs is not None and _way.pid == os.getpid()


def sent(sighting: Sighting) -> None:
    """Take what the sender has seen in this process."""
    execution = _execution.get()
    if execution is not None and execution.id == sighting.id:
        execution.again = sighting.submission
    elif _way is not None and _way.runs is not None and _way.runs(sighting.id):  # Celery's retry of a child's loss
        tell(replace(sighting, kind=Kind.RETRYING, state=State.RETRYING, submission=None))
    else:
        tell(sighting)


def failed(id: str, failure: Failure) -> Sighting:
    """Return the sighting of a failure."""
    data = {"code": failure.code, "type": failure.type, "message": failure.message[:500]}
    return Sighting(id, clock.micros(), Kind.FAILED, State.FAILED, data=data, failure=failure)


def on_prerun(task_id: str, task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    """User code begins."""
    if not task.request.is_eager:
        execution = Execution(task, task_id)
        _execution.set(execution)
        execution.start(args, kwargs)


def on_postrun(task_id: str, retval: Any, state: str | None, **_: Any) -> None:
    """User code has ended."""
    execution = _execution.get()
    if execution is not None and execution.id == task_id:
        _execution.set(None)
        execution.end(state, retval)


def on_failure(task_id: str, exception: BaseException, einfo: Any = None, **_: Any) -> None:
    """A task has failed: here, or its process has."""
    failure = failure_of(exception, str(getattr(einfo, "traceback", "") or "") or None, None)
    if isinstance(exception, WorkerLostError):
        failure = replace(failure, code=ErrorCode.WORKER_LOST, type="WorkerLost")
    execution = _execution.get()
    if execution is not None and execution.id == task_id:
        execution.failure = failure
    elif _in_main():
        tell(failed(task_id, failure))


def on_retry(request: Any, reason: Any = None, einfo: Any = None, **_: Any) -> None:
    """A task asked to be run again, or (without `einfo`) was cut off by a shutdown of its worker."""
    execution = _execution.get()
    if execution is not None and execution.id == request.id:
        if isinstance(reason, Retry) and reason.exc is not None:
            execution.failure = failure_of(reason.exc, None, None)
    elif einfo is None and _in_main():
        tell(Sighting(request.id, clock.micros(), Kind.GIVEN_BACK, State.QUEUED))


def on_revoked(sender: Any, request: Any, terminated: bool = False, expired: bool = False, **_: Any) -> None:
    """A task was revoked before it began, or was terminated, or came too late."""
    data = {"code": ErrorCode.EXPIRED} if expired else {"terminated": True} if terminated else None
    failure = Failure(ErrorCode.EXPIRED, "Expired", "It was given out after its expiry.") if expired else None
    seen = Sighting(request.id, clock.micros(), Kind.CANCELLED, State.CANCELLED, data=data, failure=failure)
    tell(replace(seen, submission=_entered(sender.app, vars(request), request.delivery_info)))


def on_unknown(sender: Any, message: Any, name: str, id: str, **_: Any) -> None:
    """A worker was given a task that it does not know; Celery drops the message."""
    seen = failed(id, Failure(ErrorCode.RAISED, "NotRegistered", f"The worker does not know a task {name!r}."))
    tell(replace(seen, submission=_entered(sender.app, message.headers, message.delivery_info)))


def _entered(app: Any, headers: Mapping[str, Any], delivery: Mapping[str, Any]) -> Submission:
    """Describe a job that has not come to run here; its arguments stayed in the message."""
    return observed(app, headers, (), {}, delivery.get("routing_key") or "", delivery.get("priority"))


RECEIVERS = {
    signals.task_prerun: on_prerun,
    signals.task_postrun: on_postrun,
    signals.task_failure: on_failure,
    signals.task_retry: on_retry,
    signals.task_revoked: on_revoked,
    signals.task_unknown: on_unknown,
}
