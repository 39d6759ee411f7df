"""In the child: run one attempt and bring home everything that follows from it.

`run_attempt` stands where Celery's tracer is called. Celery's own code decides what success,
failure, retry, ignore and callbacks mean; the backend and the sender only note it down in the
attempt's box, and the box rides back as the Ended that the main process commits.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from billiard.common import terminate_handler_fired
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.exceptions import EncodeError

from celeriac import clock, current
from celeriac.app import Capture, capture
from celeriac.failpoints import failpoint
from celeriac.jobs import Chord, ErrorCode, Failure, Kind, Submission, preview, storable
from celeriac.states import State

LOG_LINES = 1000
LOG_CHARACTERS = 4000
# Set by the pool in each child: carries (key, attempt, kind, data) to the main process.
send_frame: Callable[[tuple[Any, ...]], None] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, as the child saw it; `again` is the job's next message, if it goes on."""

    state: State
    kind: Kind
    result: str | None = None
    preview: str | None = None
    failure: Failure | None = None
    again: Submission | None = None
    sends: tuple[Submission, ...] = ()
    chords: tuple[Chord, ...] = ()
    runtime: float = 0.0


class Box(Capture):
    """What Celery stored and sent for the attempt that runs in this process."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.result: str | None = None
        self.failure: Failure | None = None


class Reports:
    """The plug of `celeriac.current` for one attempt: rate limits here, transport to the main process."""

    def __init__(self, key: int, attempt: int, slot: Path | None, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._key, self._attempt, self._slot, self._send = key, attempt, slot, send
        self._progress: dict[str, Any] | None = None
        self._sent_at = 0.0
        self._lines = 0

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """Carry a line; of progress the latest wins, at most ten a second."""
        if kind == Kind.PROGRESS:
            self._progress = _progress(data)
            if clock.monotonic() - self._sent_at >= current.REPORT_SECONDS:
                self.flush()
            return
        self._lines += 1
        if self._lines > LOG_LINES:
            return
        if self._lines == LOG_LINES:
            kind, data = Kind.LOG, {"text": f"More than {LOG_LINES} lines: the rest is not kept."}
        self._emit(kind, {name: _line(value) for name, value in data.items()})

    def flush(self) -> None:
        """Send the progress that waits for its turn."""
        if self._progress is not None:
            self._emit(Kind.PROGRESS, self._progress)
            self._progress, self._sent_at = None, clock.monotonic()

    def cancelled(self) -> bool:
        """Say whether the main process has left a cancel for this job."""
        return self._slot is not None and cancel_left(self._slot, self._key, self._attempt)

    def _emit(self, kind: str, data: dict[str, Any]) -> None:
        self._send((self._key, self._attempt, clock.micros(), str(kind), data))


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    value, total, note = float(data["value"]), data["total"], data["note"]
    return {
        "value": value if value == value and abs(value) < 1e300 else 0.0,
        "total": None if total is None or total != total else float(total),
        "note": None if note is None else storable(str(note), 200),
    }


def _line(value: Any) -> Any:
    return storable(value, LOG_CHARACTERS) if isinstance(value, str) else msgspec.json.decode(preview(value))


def cancel_left(folder: Path, key: int, attempt: int) -> bool:
    """Say whether the slot of this process names this attempt of this job."""
    try:
        return (folder / str(os.getpid())).read_text() == f"{key}:{attempt}"
    except OSError:
        return False


_running: tuple[Path, int, int] | None = None  # where cancels are left; key and attempt that this child runs


def on_cancel_signal(*_: object) -> None:
    """Handle SIGUSR2: raise JobCancelled, if the cancel is meant for the job that runs right now."""
    if _running is not None and cancel_left(*_running):
        raise current.JobCancelled


def prepare_child() -> None:
    """Make a fresh pool child ready to be cancelled."""
    signal.signal(signal.SIGUSR2, on_cancel_signal)


def run_attempt(
    task: str, id: str, request: dict[str, Any], body: Any, content_type: str, content_encoding: str, **_: Any
) -> Ended:
    """Run one attempt of a job and return how it ended. Picklable by name: the pool calls it in a child."""
    global _running
    held = request["celeriac"]
    slots = Path(held["slots"]) if held.get("slots") else None
    reports = Reports(held["key"], held["attempt"], slots, send_frame or (lambda frame: None))
    box = Box(id)
    token, unplug = capture.set(box), current.plug(reports)
    began, pid = time.monotonic(), os.getpid()
    try:
        if slots is not None:
            _running = slots, held["key"], held["attempt"]
        trace = fast_trace_task if _optimised() else trace_task_ret
        failed, outcome, _runtime = trace(task, id, request, body, content_type, content_encoding)
        _running = None
        failpoint("child-after-run")
        ended = _ended(box, outcome if failed else None)
    except current.JobCancelled:
        ended = Ended(State.CANCELLED, Kind.CANCELLED)
    except Reject as error:
        ended = _rejected(box, error)
    except (SystemExit, KeyboardInterrupt) as error:
        if os.getpid() != pid:  # a process that the task forked, on its way out
            os._exit(error.code if isinstance(error.code, int) else 1) if isinstance(error, SystemExit) else os._exit(1)
        if terminate_handler_fired():  # somebody ends this process; the attempt is lost with it
            raise
        ended = Ended(State.FAILED, Kind.FAILED, failure=_failure(error, None))
    finally:
        _running = None
        reports.flush()
        unplug()
        capture.reset(token)
    return replace(ended, runtime=time.monotonic() - began)


def _optimised() -> bool:
    from celery.app import trace

    return bool(trace._localized)


def _ended(box: Box, einfo: Any) -> Ended:
    """Tell from Celery's answer and the box how the attempt ended."""
    sends, chords = tuple(box.sends), tuple(box.chords)
    if einfo is None:
        return Ended(State.SUCCEEDED, Kind.SUCCEEDED, box.result, _preview(box.result), sends=sends, chords=chords)
    error = getattr(einfo, "exception", None)
    error = getattr(error, "exc", error)
    if isinstance(error, Retry) and box.again is not None:
        return Ended(State.RETRYING, Kind.RETRYING, failure=box.failure or _failure(error.exc, None), again=box.again)
    if isinstance(error, Ignore):
        if box.again is not None:  # Task.replace: the same job goes on as another task
            return Ended(State.QUEUED, Kind.RETRYING, again=box.again)
        return Ended(State.SUCCEEDED, Kind.SUCCEEDED, box.result, _preview(box.result), sends=sends, chords=chords)
    if isinstance(error, Reject):
        return _rejected(box, error)
    failure = box.failure or _failure(error, getattr(einfo, "traceback", None))
    return Ended(State.FAILED, Kind.FAILED, failure=failure, sends=sends, chords=chords)


def _rejected(box: Box, error: Reject) -> Ended:
    reason = storable(str(error.reason), 2000)
    if error.requeue:
        return Ended(State.QUEUED, Kind.GIVEN_BACK)
    failure = box.failure or Failure(ErrorCode.RAISED, "Reject", reason)
    return Ended(State.FAILED, Kind.FAILED, failure=failure, sends=tuple(box.sends), chords=tuple(box.chords))


def _failure(error: BaseException | None, traceback: str | None) -> Failure:
    if error is None:
        return Failure(ErrorCode.RAISED, "Retry", "The task asked to be run again.", traceback)
    return failure_of(error, traceback, None)


def failure_of(error: BaseException, traceback: str | None, celery: str | None) -> Failure:
    """Describe an exception so that it can be stored, however hostile its `str` or `repr` is."""
    name, message = _told(error)
    code = ErrorCode.NOT_STORABLE if isinstance(error, EncodeError) else ErrorCode.RAISED
    if type(error).__name__ in ("SoftTimeLimitExceeded", "TimeLimitExceeded"):
        code = ErrorCode.TIMEOUT
    return Failure(code, name, storable(message, 100_000), traceback and storable(traceback), celery)


def _told(error: BaseException) -> tuple[str, str]:
    """Return an exception's type and message as its author named them."""
    if isinstance(error, UnpickleableExceptionWrapper):  # what Celery makes of one it cannot send home
        arguments = error.exc_args
        text = arguments[0] if len(arguments) == 1 else error.text.partition("\n")[0][:500]
        return error.exc_cls_name, str(text)
    try:
        return type(error).__qualname__, str(error)
    except Exception as trouble:
        return type(error).__qualname__, f"(its str() raised {type(trouble).__name__})"


def _preview(result: str | None) -> str | None:
    if result is None or len(result) <= 512:
        return result
    return preview(msgspec.json.decode(result))
