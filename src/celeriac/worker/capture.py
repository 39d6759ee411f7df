"""In the pool: run one attempt and bring home everything that follows from it.

`run_attempt` stands where Celery's tracer is called. Celery's own code decides what success,
failure, retry, ignore and callbacks mean; the backend and the sender only note it down in the
attempt's box, and the box goes back as the Ended that the main process commits. What the task
says meanwhile goes through `reports.py`.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import format_exc
from typing import Any

import msgspec
from billiard.common import terminate_handler_fired
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import Ignore, Reject, Retry

from celeriac import current
from celeriac.app import Capture, capture
from celeriac.failpoints import failpoint
from celeriac.jobs import Chord, ErrorCode, Failure, Kind, Submission, preview, storable
from celeriac.states import State
from celeriac.worker import evidence
from celeriac.worker.failures import failure_of
from celeriac.worker.reports import Reports, cancel_left

# Set by the pool, in each child or once: carries a Frame to the node.
send_frame: Callable[[tuple[Any, ...]], None] | None = None


@dataclass(slots=True)
class Ended:
    """How an attempt ended, as the pool saw it.

    `again` is the job's next message, if it goes on; `replaced` says that it goes on as the canvas it sends.
    """

    state: State
    kind: Kind
    result: str | None = None
    preview: str | None = None
    failure: Failure | None = None
    again: Submission | None = None
    sends: tuple[Submission, ...] = ()
    chords: tuple[Chord, ...] = ()
    replaced: bool = False
    children: str | None = None
    runtime: float = 0.0

    def fields(self) -> dict[str, Any]:
        """Return what an Outcome takes over, beside state, kind and failure."""
        again = self.again
        found: dict[str, Any] = {
            "result": self.result, "preview": self.preview, "sends": self.sends, "chords": self.chords,
            "replaced": self.replaced, "children": self.children,
        }  # fmt: skip
        if again is not None:
            found |= {
                "message": again.message, "run_at": again.run_at, "new_queue": again.queue, "new_task": again.task,
                "new_priority": again.priority,
            }  # fmt: skip
        return found


class Box(Capture):
    """What Celery stored and sent for the attempt that runs in this process."""

    def __init__(self, job: str, reports: Reports) -> None:
        super().__init__(job)
        self.reports = reports
        self.result: str | None = None
        self.failure: Failure | None = None
        self.children: str | None = None


_folder = cache(Path)  # making a Path anew costs each attempt 7 µs
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
    if "still_held" in held and not held["still_held"]():  # a thread, taken up after the job was given back
        return Ended(State.QUEUED, Kind.GIVEN_BACK)
    slots = _folder(held["slots"]) if held.get("slots") else None
    reports = Reports(held, slots, send_frame or (lambda frame: None))
    box = Box(id, reports)
    token, unplug = capture.set(box), current.plug(reports)
    began, pid = time.monotonic(), os.getpid()
    try:
        if slots is not None:
            evidence.begin(slots)
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
    except Exception as error:  # Celery lets a MemoryError pass; a thread has nobody behind it to tell
        ended = Ended(State.FAILED, Kind.FAILED, failure=_failure(error, format_exc()))
    finally:
        _running = None
        reports.flush()
        unplug()
        capture.reset(token)
    ended.runtime = time.monotonic() - began
    return ended


def _optimised() -> bool:
    from celery.app import trace

    return bool(trace._localized)


def _ended(box: Box, einfo: Any) -> Ended:
    """Tell from Celery's answer and the box how the attempt ended."""
    sends, chords = tuple(box.sends), tuple(box.chords)
    if einfo is None:
        return _succeeded(box)
    error = getattr(einfo, "exception", None)
    error = getattr(error, "exc", error)
    if isinstance(error, Retry) and box.again is not None:
        return Ended(State.RETRYING, Kind.RETRYING, failure=box.failure or _failure(error.exc, None), again=box.again)
    if isinstance(error, Ignore):
        if box.again is not None:  # Task.replace: the same job goes on as another task
            return Ended(State.QUEUED, Kind.RETRYING, again=box.again)
        if box.replaced:
            return Ended(State.RETRYING, Kind.RETRYING, sends=sends, chords=chords, replaced=True)
        if box.failure is None:
            return _succeeded(box)
    if isinstance(error, Reject):
        return _rejected(box, error)
    failure = box.failure or _failure(error, getattr(einfo, "traceback", None))
    return Ended(State.FAILED, Kind.FAILED, failure=failure, sends=sends, chords=chords)


def _succeeded(box: Box) -> Ended:
    return Ended(
        State.SUCCEEDED, Kind.SUCCEEDED, box.result, _preview(box.result), sends=tuple(box.sends),
        chords=tuple(box.chords), children=box.children,
    )  # fmt: skip


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


def _preview(result: str | None) -> str | None:
    if result is None or len(result) <= 512:
        return result
    return preview(msgspec.json.decode(result))
