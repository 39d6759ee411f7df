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

# A start is written with its outcome when that comes within this time, alone before twice this time is over.
# All that were noted by then, however lately, made a quarter of the no-op jobs cost a statement more.
START_SECONDS = 0.03
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
    under_way: bool = False  # while the ledger is away nothing piles up behind


class History:
    """Writes for one node. Its methods run in the hub's thread."""

    def __init__(self, group: Group, inbox: Inbox) -> None:
        self._group, self._inbox = group, inbox
        self.patient = True  # whether the hub is free while tasks run, so that waiting makes sense
        self._starts: dict[int, Start] = {}
        self._older: dict[int, Start] = {}  # starts that the last look has left for the next
        self._looks = False  # whether there will be one
        self._latest: dict[int, _Latest] = {}

    def started(self, item: Start) -> None:
        """Note that user code runs; written soon, or together with the outcome if that comes first."""
        self._starts[item.key] = item
        if self.patient:
            self._look_later()
        else:
            self._write_starts()

    def report(self, frame: Frame) -> None:
        """Take a line that an attempt reported."""
        key, attempt, at, kind, data = frame
        if key in self._starts or key in self._older:  # in its history, too, a job starts before it speaks
            self._write_starts()
        if kind == REMARK:
            self._put_off(key, remark, Remark(key, attempt, at, data["state"], data["meta"]))
        elif kind == Kind.PROGRESS:
            self._put_off(key, note, Note(key, attempt, at, Kind.PROGRESS, data))
        else:
            self._group.add(note, Note(key, attempt, at, Kind(kind), data), _ignore, urgent=False)

    def close(self, key: int) -> None:
        """Write what is left of a job whose attempt has ended, and forget it."""
        self._write_latest(key, at_once=True)
        if self._starts.pop(key, None) is None:  # the outcome carries it
            self._older.pop(key, None)
        self._latest.pop(key, None)

    def _look_later(self) -> None:
        if not self._looks:
            self._looks = True
            self._inbox.later(START_SECONDS, self._look)

    def _look(self) -> None:
        """Write what was there at the last look; what has come since may yet meet its outcome."""
        self._looks = False
        young, self._starts = self._starts, {}
        self._write_starts()
        self._older = young
        if young:
            self._look_later()

    def _write_starts(self) -> None:
        starts = [*self._older.values(), *self._starts.values()]
        self._older, self._starts = {}, {}
        for item in starts:
            self._group.add(start, item, _ignore, urgent=False)

    def _put_off(self, key: int, move: Any, item: Note | Remark) -> None:
        latest = self._latest.setdefault(key, _Latest())
        waiting = latest.item is not None
        if waiting and latest.move is not move:  # progress and a state do not stand for each other
            self._write_latest(key, at_once=True)
        latest.move, latest.item = move, item
        wait = latest.written_at + LATEST_SECONDS - clock.monotonic()
        if wait <= 0:
            self._write_latest(key)
        elif not waiting:
            self._inbox.later(wait, partial(self._write_latest, key))

    def _write_latest(self, key: int, at_once: bool = False) -> None:
        latest = self._latest.get(key)
        if latest is None or latest.item is None or (latest.under_way and not at_once):
            return

        def written(_: Any) -> None:
            latest.under_way = False
            if clock.monotonic() - latest.written_at >= LATEST_SECONDS:  # its turn has come meanwhile
                self._write_latest(key)

        latest.under_way = True
        self._group.add(latest.move, latest.item, written, urgent=False)
        latest.item, latest.written_at = None, clock.monotonic()


def _ignore(_: Any) -> None:
    pass
