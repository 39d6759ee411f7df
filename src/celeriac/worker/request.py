"""One attempt in the main process: from the claimed message to its outcome.

Celery's Request, with every way an attempt can end leading to `Node.end`. Nothing is
acknowledged to a broker here: the claim's commit was the acknowledgement.
"""

import os
import signal
import time
from dataclasses import replace
from typing import Any

from billiard.einfo import ExceptionWithTraceback
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
from celeriac.worker.capture import Ended, failure_of, run_attempt

log = get_logger(__name__)

DEATH_PAUSE_SECONDS = 1.0
DEATH_PAUSE_MOST_SECONDS = 60.0


class LedgerRequest(Request):
    """A claimed job on its way through the pool."""

    in_pool = False
    evicted = False
    started_at: int | None = None
    _cancel_step = 0

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
        held = self._request_dict["celeriac"]
        self.key: int = held["key"]
        self.attempt: int = held["attempt"]
        self.queue: str = held["queue"]
        self.task_name_claimed: str = held["task"]
        self._deaths: int = held["deaths"]
        self._node = nodes.this()
        self._node.adopt(self)

    # On the way in

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the attempt to the pool."""
        if self._cancel_step or self.revoked():
            worker_state.task_ready(self)
            raise TaskRevokedError(self.id)
        self.in_pool = True
        self._pool = pool
        hard, soft = self.time_limits
        task = self._task
        request = {name: value for name, value in self._request_dict.items() if name not in ("args", "kwargs")}
        request["celeriac"] = {**request["celeriac"], "slots": str(self._node.slots)}
        return pool.apply_async(
            run_attempt,
            args=(self._type, self.id, request, self._body, self._content_type, self._content_encoding),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft or task.soft_time_limit,
            timeout=hard or task.time_limit,
            correlation_id=self.id,
        )

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A child took the attempt: user code runs from now on."""
        failpoint("main-accepted")
        super().on_accepted(pid, time_accepted)
        self.started_at = clock.micros() - int((time.monotonic() - time_accepted) * 1_000_000)
        self._node.started(self)
        if self._cancel_step:
            self._cancel_step = 0
            self.begin_cancel()

    # On the way out

    def on_success(self, ended: Ended, **_: Any) -> None:
        """The child answered; how the attempt ended is in the answer."""
        failpoint("main-before-outcome")
        worker_state.task_ready(self, successful=ended.state is State.SUCCEEDED)
        again = ended.again
        outcome = self._outcome(ended.state, ended.kind, ended.failure)
        fields: dict[str, Any] = {
            "result": ended.result, "preview": ended.preview, "sends": ended.sends, "chords": ended.chords,
        }  # fmt: skip
        if again is not None:
            fields |= {
                "message": again.message, "run_at": again.run_at, "new_queue": again.queue, "new_task": again.task,
                "new_priority": again.priority,
            }  # fmt: skip
        self._node.end(self, replace(outcome, **fields), ended.runtime)
        log.info("%s[%s] %s in %.3f s", self.name, self.id, ended.state, ended.runtime)
        self._tell_celery(ended)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The child did not answer: it died, was killed, or ran out of time."""
        worker_state.task_ready(self)
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if self._cancel_step:
            self._node.end(self, self._outcome(State.CANCELLED, Kind.CANCELLED, None))
        elif self.evicted:
            self._node.end(self, self._outcome(State.QUEUED, Kind.GIVEN_BACK, None))
        elif isinstance(error, TimeLimitExceeded):
            self._fail(
                error,
                Failure(ErrorCode.TIMEOUT, "TimeLimitExceeded", f"The task ran longer than {error.args[0]} seconds."),
            )
        elif (
            isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt)) or type(error).__name__ == "Terminated"
        ):
            self._lost(error)
        else:
            self._fail(error, failure_of(error, str(exc_info.traceback), None))
        if send_failed_event:
            self.send_event("task-failed", exception=type(error).__name__, traceback="")

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Log a soft limit; a hard one is told to `on_failure`, too, and is handled there once."""
        if soft:
            log.warning("Soft time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)

    def _lost(self, error: BaseException) -> None:
        """The child died under the attempt: it runs again after a pause, or ends by its policy."""
        if self.started_at is None:
            self._node.give_back(self)
            return
        pause = min(DEATH_PAUSE_SECONDS * 2**self._deaths, DEATH_PAUSE_MOST_SECONDS)
        message = f"The process that ran it ended: {error}"
        self._fail(
            error, Failure(ErrorCode.WORKER_LOST, "WorkerLost", message), State.RETRYING, Kind.RESCUED, death=True,
            run_at=clock.micros() + int(pause * 1_000_000),
        )  # fmt: skip

    def _fail(
        self,
        error: BaseException,
        failure: Failure,
        state: State = State.FAILED,
        kind: Kind = Kind.FAILED,
        **fields: Any,
    ) -> None:
        with capturing(job=self.id) as box:  # error callbacks, and the links that can no longer run
            try:
                self.task.backend.mark_as_failure(self.id, error, request=self._context)
            except Exception:
                log.exception("The error callbacks of %s[%s] cannot be sent", self.name, self.id)
        outcome = self._outcome(state, kind, failure)
        self._node.end(self, replace(outcome, sends=tuple(box.sends), chords=tuple(box.chords), **fields))

    def _outcome(self, state: State, kind: Kind, failure: Failure | None) -> Outcome:
        data: dict[str, Any] = {"attempt": self.attempt}
        if failure is not None:
            data |= {"code": failure.code, "type": failure.type, "message": failure.message[:500]}
        return Outcome(
            self.key, self.id, self.attempt, self.task_name_claimed, self.queue, state, clock.micros(), kind, data,
            started_at=self.started_at, failure=failure,
        )  # fmt: skip

    def _tell_celery(self, ended: Ended) -> None:
        if ended.state is State.SUCCEEDED:
            self.send_event("task-succeeded", result=(ended.preview or "None")[:1024], runtime=ended.runtime)
        elif ended.failure is not None:
            kind = "task-retried" if ended.state is State.RETRYING else "task-failed"
            error = f"{ended.failure.type}({ended.failure.message[:500]!r})"
            self.send_event(kind, exception=error, traceback=ended.failure.traceback or "")

    # Cancelling

    def begin_cancel(self) -> None:
        """Climb the ladder: a signal the task may clean up after, then SIGTERM, then SIGKILL.

        `cancelled` is written when the child has answered or is dead. A job that has not reached
        a child ends at once.
        """
        if self._cancel_step:
            return
        self._cancel_step = 1
        if not self.in_pool:
            worker_state.task_ready(self)
            self._node.end(self, self._outcome(State.CANCELLED, Kind.CANCELLED, None))
        elif self.started_at is not None:
            try:
                (self._node.slots / str(self.worker_pid)).write_text(f"{self.key}:{self.attempt}")
            except OSError as error:
                log.warning("The gentle way to cancel %s fails (%s); the hard one follows.", self.id, error)
            self._signal(signal.SIGUSR2)
            self._node.later(self._node.settings.cancel_grace_seconds, self._climb)

    def _climb(self) -> None:
        if self._node.held.get(self.key) is not self:
            return
        self._cancel_step += 1
        self._signal(signal.SIGTERM if self._cancel_step == 2 else signal.SIGKILL)
        self._node.later(self._node.settings.cancel_grace_seconds, self._climb)

    def evict(self) -> None:
        """Kill an attempt that outlasts the worker's shutdown; it runs again elsewhere."""
        self.evicted = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        try:
            if number is signal.SIGUSR2:
                os.kill(self.worker_pid, number)
            else:
                self._pool.terminate_job(self.worker_pid, number)
        except ProcessLookupError:
            pass

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        self._already_revoked = True
        worker_state.task_ready(self)
        self._node.end(self, self._outcome(State.CANCELLED, Kind.CANCELLED, None))
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)

    def acknowledge(self) -> None:
        """Do nothing: the claim was the acknowledgement."""
        self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        """Do nothing: outcomes go to the node."""
        self.acknowledged = True
