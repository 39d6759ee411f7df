"""What task code uses while it runs as a job: progress, track, log, emit, cancelled.

Everything works outside a job too (in a test, a shell, plain Celery): then it does nothing.
A worker plugs itself in for each attempt with `plug`. Reports cost about ten microseconds
and never touch the database from here: they ride to the worker's main process.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from celeriac import clock


class JobCancelled(BaseException):
    """Raised inside a task when its job is cancelled. Clean up with `finally`; do not swallow it.

    Not an Exception, so that a broad `except Exception` in task code does not stop a cancel. In a pool of
    threads, and in a solo one, nothing can interrupt a task: there `progress`, `track` and an `await` raise it.
    """


T = TypeVar("T")
REPORT_SECONDS = 0.1


class Plug(Protocol):
    """The worker's side of one attempt."""

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """Carry a line of history to the main process."""

    def cancelled(self) -> bool:
        """Say whether somebody asked to cancel this job."""


_plug: ContextVar[Plug | None] = ContextVar("celeriac_plug", default=None)


def plug(worker: Plug | None) -> Callable[[], None]:
    """Connect the running attempt to its worker; return what undoes it."""
    token = _plug.set(worker)
    return lambda: _plug.reset(token)


def progress(value: float, total: float | None = None, note: str | None = None) -> None:
    """Say how far the job is: `value` of `total` (None when unknown), with a short note.

    Call it as often as you like; what is shown is rate-limited, and the latest always wins.
    """
    if plug := _plug.get():
        plug.report("progress", {"value": value, "total": total, "note": note})


def track(items: Iterable[T], total: float | None = None, note: str | None = None) -> Iterator[T]:
    """Yield the items and report progress while they are consumed, at most ten times a second.

    `total` defaults to the length of `items` where it has one. A cancel asked for meanwhile
    ends the task at the next item.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    reported_at = 0.0
    place = 0
    for place, item in enumerate(items):
        now = clock.monotonic()
        if now - reported_at >= REPORT_SECONDS:
            progress(place, total, note)
            reported_at = now
        yield item
    progress(total if total is not None else place + 1, total, note)


def log(text: str) -> None:
    """Add a line to the job's log."""
    if plug := _plug.get():
        plug.report("log", {"text": str(text)})


def emit(data: Any) -> None:
    """Send a message of your own (JSON) to whoever watches the job."""
    if plug := _plug.get():
        plug.report("message", {"data": data})


def cancelled() -> bool:
    """Say whether somebody asked to cancel this job, for tasks that prefer to end by themselves."""
    plug = _plug.get()
    return plug.cancelled() if plug else False
