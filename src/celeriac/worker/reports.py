"""What a running attempt reports: the plug of `celeriac.current`, and Celery's `update_state`.

Rate limits are kept here, the transport is the pool's. Where an attempt has no process that could be
signalled (threads, solo), a cancel and the time limits reach the task from here, too: `progress`
and `track` raise them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from celeriac import clock, current
from celeriac.jobs import Kind, preview, storable
from celeriac.worker import evidence
from celeriac.worker.history import REMARK

LOG_LINES = 1000
LOG_CHARACTERS = 4000


class Reports:
    """The worker's side of one attempt, in the pool.

    `held` is what the request knows of it: the job's key, the attempt, and, without a folder `slots` where
    cancels are left for processes, `cancelled` (a question to the node) and `limits` (soft, hard).
    """

    def __init__(self, held: Mapping[str, Any], slots: Path | None, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._key, self._attempt, self._send = held["key"], held["attempt"], send
        self._slots = slots
        self._asked: Callable[[], bool] | None = held.get("cancelled")
        limits = zip(held.get("limits") or (), _LIMITS, strict=False)
        self._limits = [(limit, error) for limit, error in limits if limit]
        self._began = clock.monotonic()
        self._latest: tuple[str, dict[str, Any]] | None = None
        self._sent_at = 0.0
        self._lines = 0

    def report(self, kind: str, data: dict[str, Any]) -> None:
        """Carry a line; of progress the latest wins, at most ten a second."""
        if kind == Kind.PROGRESS:
            self._interrupt()
            self._put_off(Kind.PROGRESS, _progress(data))
            return
        if kind == Kind.LOG:
            evidence.keep(data["text"])
        self._lines += 1
        if self._lines > LOG_LINES:
            return
        if self._lines == LOG_LINES:
            kind, data = Kind.LOG, {"text": f"More than {LOG_LINES} lines: the rest is not kept."}
        self._emit(kind, {name: _line(value) for name, value in data.items()})

    def remark(self, state: str, meta: str) -> None:
        """Carry a state that the task gave itself, with its meta (JSON); the latest wins, at most ten a second."""
        self._interrupt()
        self._put_off(REMARK, {"state": storable(state, 100), "meta": meta})

    def flush(self) -> None:
        """Send the progress or state that waits for its turn."""
        if self._latest is not None:
            self._emit(*self._latest)
            self._latest, self._sent_at = None, clock.monotonic()

    def cancelled(self) -> bool:
        """Say whether somebody asked to cancel this job."""
        if self._slots is not None:
            return cancel_left(self._slots, self._key, self._attempt)
        return self._asked is not None and self._asked()

    def _interrupt(self) -> None:
        """Raise, once each, what a signal would have raised in a process."""
        if self._asked is not None and self._asked():
            self._asked = None
            raise current.JobCancelled
        while self._limits and clock.monotonic() - self._began > self._limits[0][0]:
            limit, error = self._limits.pop(0)
            raise error(limit)

    def _put_off(self, kind: str, data: dict[str, Any]) -> None:
        if self._latest is not None and self._latest[0] != kind:
            self.flush()
        self._latest = kind, data
        if clock.monotonic() - self._sent_at >= current.REPORT_SECONDS:
            self.flush()

    def _emit(self, kind: str, data: dict[str, Any]) -> None:
        self._send((self._key, self._attempt, clock.micros(), str(kind), data))


_LIMITS = (SoftTimeLimitExceeded, TimeLimitExceeded)


def cancel_left(folder: Path, key: int, attempt: int) -> bool:
    """Say whether the slot of this process names this attempt of this job."""
    try:
        return (folder / str(os.getpid())).read_text() == f"{key}:{attempt}"
    except OSError:
        return False


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    value, total, note = float(data["value"]), data["total"], data["note"]
    return {
        "value": value if value == value and abs(value) < 1e300 else 0.0,
        "total": None if total is None or total != total else float(total),
        "note": None if note is None else storable(str(note), 200),
    }


def _line(value: Any) -> Any:
    return storable(value, LOG_CHARACTERS) if isinstance(value, str) else msgspec.json.decode(preview(value))
