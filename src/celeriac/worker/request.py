"""One attempt in the main process: from the claimed message to its outcome.

Celery's Request, with every way an attempt can end leading to `Node.end`. Nothing is
acknowledged to a broker here: the claim's commit was the acknowledgement. `begin_cancel` is the
ladder of a cancel.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import signals
from celery import states as celery_states
from celery.app.trace import task_has_custom
from celery.concurrency.thread import ApplyResult
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.request import Request

from celeriac import clock
from celeriac.app import capturing
from celeriac.failpoints import failpoint
from celeriac.jobs import ErrorCode, Failure, Kind, Outcome
from celeriac.states import State
from celeriac.worker import node as nodes
from celeriac.worker.capture import Ended, run_attempt
from celeriac.worker.evidence import ChildLost
from celeriac.worker.failures import failure_of

log = get_logger(__name__)

DEATH_PAUSE_SECONDS = 1.0
DEATH_PAUSE_MOST_SECONDS = 60.0


class LedgerRequest(Request):
    """A claimed job on its way through the pool."""

    evicted = False
    started_at: int | None = None
    _cancel_step = 0
    _pool: Any = None  # set once the pool has it
    _handed: Any = None  # what the pool gave for it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # create_request_cls() of Celery 5.7 subclasses us per task and overrides these two without
        # calling super (celery/worker/request.py); taking its versions away leaves ours in place.
        if cls.__module__ == "celery.worker.request":
            for name in ("on_success", "execute_using_pool"):
                if name in cls.__dict__:
                    delattr(cls, name)

    def __init__(self, message: Any, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self._node = nodes.this()
        self.job = self._node.adopt(self._request_dict["celeriac"]["key"], self)

    # On the way in

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the attempt to the pool."""
        if self._cancel_step or self.revoked():
            worker_state.task_ready(self)
            raise TaskRevokedError(self.id)
        self._pool = pool
        hard, soft = self.time_limits
        hard, soft = hard or self._task.time_limit, soft or self._task.soft_time_limit
        job = self.job
        request = {name: value for name, value in self._request_dict.items() if name not in ("args", "kwargs")}
        request["celeriac"] = {"key": job.key, "attempt": job.attempt, "owner": job.owner}
        if pool.processes:
            request["celeriac"]["slots"] = str(self._node.slots)
        else:
            request["celeriac"] |= {"limits": (soft, hard), "cancelled": self._asked_to_cancel,
                                      "still_held": self._still_held}  # fmt: skip
        self._handed = pool.apply_async(
            run_attempt,
            args=(self._type, self.id, request, self._body, self._content_type, self._content_encoding),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft,
            timeout=hard,
            correlation_id=self.id,
        )
        return self._handed

    def _still_held(self) -> bool:
        return self._node.holds(self.job)

    def _asked_to_cancel(self) -> bool:
        return (self.job.key, self.job.attempt) in self._node.cancelled

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The pool began with the attempt: user code runs from now on."""
        failpoint("main-accepted")
        super().on_accepted(pid, time_accepted)
        self.started_at = clock.micros() - int((time.monotonic() - time_accepted) * 1_000_000)
        self._node.started(self.job, self.started_at)
        if self._cancel_step:
            self._cancel_step = 0
            self.begin_cancel()

    # On the way out

    def on_success(self, ended: Ended, **_: Any) -> None:
        """The attempt answered; how it ended is in the answer."""
        failpoint("main-before-outcome")
        worker_state.task_ready(self, successful=ended.state is State.SUCCEEDED)
        outcome = self._outcome(ended.state, ended.kind, ended.failure, **ended.fields())
        self._node.end(self.job, outcome, ended.runtime)
        log.info("%s[%s] %s in %.3f s", self.name, self.id, ended.state, ended.runtime)
        self._tell_celery(ended)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The attempt did not answer: its process died, was killed, or ran out of time."""
        worker_state.task_ready(self)
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if self._cancel_step:
            self._cancelled(terminated=True)
        elif self.evicted:
            self._node.end(self.job, self._outcome(State.QUEUED, Kind.GIVEN_BACK, None))
        elif isinstance(error, TimeLimitExceeded):
            message = f"The task ran longer than {error.args[0]} seconds."
            self._fail(error, exc_info, Failure(ErrorCode.TIMEOUT, "TimeLimitExceeded", message))
        elif isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt)) or _terminated(error):
            self._lost(error)
        else:
            self._fail(error, exc_info, failure_of(error, str(exc_info.traceback), None))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Log a soft limit; a hard one is told to `on_failure`, too, and is handled there once."""
        if soft:
            log.warning("Soft time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)

    def _lost(self, error: BaseException) -> None:
        """The process died under the attempt: it runs again after a pause, or ends by its policy."""
        if self.started_at is None:
            self._node.give_back(self.job)
            return
        pause = min(DEATH_PAUSE_SECONDS * 2**self.job.deaths, DEATH_PAUSE_MOST_SECONDS)
        told = " ".join(str(error).split()).rstrip(".")
        failure = Failure(ErrorCode.WORKER_LOST, "WorkerLost", f"The process that ran it ended: {told}.")
        outcome = self._outcome(State.RETRYING, Kind.RESCUED, failure)
        evidence = error.death.data() if isinstance(error, ChildLost) else {}
        log.error("%s[%s] lost its process: %s%s", self.name, self.id, told, _block(evidence.get("stack")))
        self._node.end(self.job, replace(
            outcome, data=(outcome.data or {}) | {"worker": self._node.id} | evidence, death=True,
            run_at=clock.micros() + int(pause * 1_000_000),
        ))  # fmt: skip

    def _fail(self, error: Exception, einfo: ExceptionInfo, failure: Failure) -> None:
        """Fail the job from here, with everything that Celery's tracer does in the attempt."""
        task, arguments = self._task, (self.id, self.args, self.kwargs)
        with capturing(job=self.id) as box:  # error callbacks
            try:
                task.backend.mark_as_failure(self.id, error, request=self._context)
                task.on_failure(error, *arguments, einfo)
                if task_has_custom(task, "after_return"):
                    task.after_return(celery_states.FAILURE, error, *arguments, None)
            except Exception:
                log.exception("What is to follow the failure of %s[%s] fails as well", self.name, self.id)
        signals.task_failure.send(
            sender=task, task_id=self.id, exception=error, args=self.args, kwargs=self.kwargs,
            traceback=error.__traceback__, einfo=einfo,
        )  # fmt: skip
        outcome = self._outcome(State.FAILED, Kind.FAILED, failure)
        self._node.end(self.job, replace(outcome, sends=tuple(box.sends), chords=tuple(box.chords)))
        self.send_event("task-failed", exception=f"{failure.type}({failure.message[:500]!r})", traceback="")

    def _cancelled(self, *, terminated: bool = False, expired: bool = False) -> None:
        self._node.end(self.job, self._outcome(State.CANCELLED, Kind.CANCELLED, None))
        told = {"terminated": terminated, "signum": None, "expired": expired}
        self.send_event("task-revoked", **told)
        signals.task_revoked.send(sender=self._task, request=self._context, **told)

    def _outcome(self, state: State, kind: Kind, failure: Failure | None, **more: Any) -> Outcome:
        data: dict[str, Any] = {"attempt": self.job.attempt}
        if failure is not None:
            data |= {"code": failure.code, "type": failure.type, "message": failure.message[:500]}
        job = self.job
        return Outcome(
            job.key, job.id, job.attempt, job.task, job.queue, state, clock.micros(), kind, data,
            started_at=self.started_at, failure=failure, **more,
        )  # fmt: skip

    def _tell_celery(self, ended: Ended) -> None:
        if ended.state is State.SUCCEEDED:
            self.send_event("task-succeeded", result=(ended.preview or "None")[:1024], runtime=ended.runtime)
        elif ended.state is State.CANCELLED:
            told = {"terminated": True, "signum": None, "expired": False}
            self.send_event("task-revoked", **told)
            signals.task_revoked.send(sender=self._task, request=self._context, **told)
        elif ended.failure is not None:
            kind = "task-retried" if ended.state is State.RETRYING else "task-failed"
            error = f"{ended.failure.type}({ended.failure.message[:500]!r})"
            self.send_event(kind, exception=error, traceback=ended.failure.traceback or "")

    # Cancelling

    def begin_cancel(self) -> None:
        """Climb the ladder: a signal the task may clean up after, then SIGTERM, then SIGKILL.

        `cancelled` is written when the child has answered or is dead. A job that has not reached
        the pool ends at once. In a pool without processes the task learns of it when it next
        reports progress, and until then it runs on.
        """
        if self._cancel_step:
            return
        self._cancel_step = 1
        if self._pool is None:
            worker_state.task_ready(self)
            self._cancelled()
        elif self.started_at is not None and self._pool.processes:
            try:
                (self._node.slots / str(self.worker_pid)).write_text(f"{self.job.key}:{self.job.attempt}")
            except OSError as error:
                log.warning("The gentle way to cancel %s fails (%s); the hard one follows.", self.id, error)
            with suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGUSR2)
            self._node.inbox.later(self._node.settings.cancel_grace_seconds, self._climb)

    def _climb(self) -> None:
        if self._node.running.get(self.job.key) is not self:
            return
        self._cancel_step += 1
        self._end_process(signal.SIGTERM if self._cancel_step == 2 else signal.SIGKILL)
        self._node.inbox.later(self._node.settings.cancel_grace_seconds, self._climb)

    def withdraw(self) -> bool:
        """See to it that the attempt never begins; say whether that was in time.

        A thread or a child may have begun before the node has heard of it: only the thread's future knows, and what
        is in a child's pipe begins. What waits for a child the pool drops by itself (`AsynPool.flush`).
        """
        if self.started_at is not None:
            return False
        if isinstance(self._handed, ApplyResult):
            return bool(self._handed.f.cancel())
        return getattr(self._handed, "_write_to", None) is None

    def evict(self) -> None:
        """Kill an attempt that outlasts the worker's shutdown; it runs again elsewhere."""
        self.evicted = True
        self._end_process(signal.SIGKILL)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Do as Celery asks in a cold shutdown: end the attempt, which is given back."""
        self.evict()

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Do as Celery's own remote control asks: cancel."""
        self.begin_cancel()

    def _end_process(self, number: signal.Signals) -> None:
        if self._pool is not None and self._pool.processes and self.started_at is not None:
            with suppress(ProcessLookupError):
                self._pool.terminate_job(self.worker_pid, number)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        self._already_revoked = True
        worker_state.task_ready(self)
        self._cancelled(terminated=terminated, expired=expired)

    def acknowledge(self) -> None:
        """Do nothing: the claim was the acknowledgement."""
        self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        """Do nothing: outcomes go to the node."""
        self.acknowledged = True


def _block(text: str | None) -> str:
    return f"\n{text}" if text else ""


def _terminated(error: BaseException) -> bool:
    return type(error).__name__ == "Terminated"
