"""The folder that a node shares with its children: marks of what is cancelled, and what a child leaves that dies.

One for each worker, among the temporary files. A worker that is killed leaves its own behind, and with it the last
lines its jobs logged; the next worker of the same user removes it.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "celeriac-worker-"
_LOCK = "lock"


class Slots:
    """A new folder, held until it is closed or its process has gone, and all children of it."""

    def __init__(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_if_left(folder)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        new = self.folder / "new"
        self._lock = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.folder / _LOCK)  # nobody sees it before it is locked

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder whose lock nobody holds; leave one of another user, or one that is just being made."""
    with contextlib.suppress(OSError):
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(lock)
