"""The ledger: the durable record of every job, and the only home of SQL.

Writes are moves (`submit`, `claim`, `start`, `note`, `finish`, `cancel`, `reopen`): functions
over a Transaction that take and answer many items at once, made one at a time with
`Ledger.do` or many at a time by a `Group`. Reads are in `read`. `open_ledger` opens one
Ledger per process and URL.
`docs/tour.md` follows one job through the files.
"""

import os
import threading
from contextlib import ExitStack

from celeriac.ledger import batches, dead_letters, keys, mail, nodes, operations, queues, read, upkeep
from celeriac.ledger.group import Group
from celeriac.ledger.moves.chords import open_chord
from celeriac.ledger.moves.claim import claim
from celeriac.ledger.moves.finish import finish, note, start
from celeriac.ledger.moves.observe import Sighting, sight
from celeriac.ledger.moves.purge import purge
from celeriac.ledger.moves.remark import forget, remark
from celeriac.ledger.moves.requests import Asked, cancel, reopen
from celeriac.ledger.moves.submit import submit
from celeriac.ledger.store import Ledger, Move, Transaction

# The order in which a Group makes the moves of one batch: that of a job's life.
ORDER = (
    open_chord,
    submit,
    batches.submit_batch,
    start,
    note,
    remark,
    finish,
    cancel,
    reopen,
    operations.begin,
    queues.pause,
    queues.resume,
    nodes.register,
    nodes.revise,
    nodes.beat,
    nodes.stop,
    mail.put,
    dead_letters.bury,
    claim,
)

_open: dict[str, Ledger] = {}
_lock = threading.Lock()
# Connections inherited by a fork must be neither used nor closed there, so they are kept, unused.
_inherited: list[object] = []


def open_ledger(url: str) -> Ledger:
    """Return this process's Ledger for a URL, opening it the first time."""
    with _lock:
        if url not in _open:
            _open[url] = Ledger(url)
        return _open[url]


def close_ledger(url: str) -> None:
    """Close this process's Ledger for a URL, if it has one."""
    with _lock:
        ledger = _open.pop(url, None)
    if ledger is not None:
        ledger.close()


def _before_fork() -> None:
    _forking.enter_context(_lock)
    for ledger in _open.values():
        _forking.enter_context(ledger.let_go())


def _after_fork_in_parent() -> None:
    _forking.pop_all().close()  # taken over while the lock is held: another thread may fork next


def _after_fork_in_child() -> None:
    global _open, _lock, _forking
    _inherited.append((_open, _forking))
    _open, _lock, _forking = {}, threading.Lock(), ExitStack()


_forking = ExitStack()
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

__all__ = [
    "ORDER", "Asked", "Group", "Ledger", "Move", "Sighting", "Transaction", "batches", "cancel", "claim",
    "close_ledger", "dead_letters", "finish", "forget", "keys", "mail", "nodes", "note", "open_chord", "open_ledger",
    "operations", "purge", "queues", "read", "remark", "reopen", "sight", "start", "submit", "upkeep",
]  # fmt: skip
