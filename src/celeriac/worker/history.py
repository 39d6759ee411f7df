"""The history of what a node runs: starts, progress, lines and states on their way to the ledger.

The node hands over what its attempts report (`node.py`), in the hub's thread. A start shares its
commit with the outcome when that follows soon; of progress and states the latest is written once
a second, the rest as it comes. Within a job all of it is written in order, before the outcome.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from celeriac import clock
from celeriac.jobs import Kind, Note, Remark, Start
from celeriac.ledger import Group, note, remark, start
from celeriac.worker.inbox import Inbox

# A start is written with its outcome when that comes within this time, alone otherwise.
START_SECONDS = 0.05
LATEST_SECONDS = 1.0

# What a child reports: job key, attempt, when, kind of event (or REMARK), its data.
Frame: TypeAlias = tuple[int, int, int, str, dict[str, Any]]
REMARK = "remark"


@dataclass(slots=True)
class _Latest:
    """The newest progress or state of a job that waits to be written, and when the one before it was."""

    move: Any = None
    item: Note | Remark | None = None
    written_at: float = 0.0


class History:
    """Writes for one node. Its methods run in the hub's thread."""

    def __init__(self, group: Group, inbox: Inbox) -> None:
        self._group, self._inbox = group, inbox
        self.patient = True  # whether the hub is free while tasks run, so that waiting makes sense
        self._starts: dict[int, Start] = {}
        self._latest: dict[int, _Latest] = {}

    def started(self, item: Start) -> None:
        """Note that user code runs; written soon, or together with the outcome if that comes first."""
        if not self._starts and self.patient:
            self._inbox.later(START_SECONDS, self._write_starts)
        self._starts[item.key] = item
        if not self.patient:
            self._write_starts()

    def report(self, frame: Frame) -> None:
        """Take a line that an attempt reported."""
        key, attempt, at, kind, data = frame
        if key in self._starts:  # in its history, too, a job starts before it speaks
            self._write_starts()
        if kind == REMARK:
            self._put_off(key, remark, Remark(key, attempt, at, data["state"], data["meta"]))
        elif kind == Kind.PROGRESS:
            self._put_off(key, note, Note(key, attempt, at, Kind.PROGRESS, data))
        else:
            self._group.add(note, Note(key, attempt, at, Kind(kind), data), _ignore, urgent=False)

    def close(self, key: int) -> None:
        """Write what is left of a job whose attempt has ended, and forget it."""
        self._write_latest(key)
        self._starts.pop(key, None)  # the outcome carries it
        self._latest.pop(key, None)

    def _write_starts(self) -> None:
        starts, self._starts = self._starts, {}
        for item in starts.values():
            self._group.add(start, item, _ignore, urgent=False)

    def _put_off(self, key: int, move: Any, item: Note | Remark) -> None:
        latest = self._latest.setdefault(key, _Latest())
        waiting = latest.item is not None
        if waiting and latest.move is not move:  # progress and a state do not stand for each other
            self._write_latest(key)
        latest.move, latest.item = move, item
        wait = latest.written_at + LATEST_SECONDS - clock.monotonic()
        if wait <= 0:
            self._write_latest(key)
        elif not waiting:
            self._inbox.later(wait, partial(self._write_latest, key))

    def _write_latest(self, key: int) -> None:
        latest = self._latest.get(key)
        if latest is not None and latest.item is not None:
            self._group.add(latest.move, latest.item, _ignore, urgent=False)
            latest.item, latest.written_at = None, clock.monotonic()


def _ignore(_: Any) -> None:
    pass
