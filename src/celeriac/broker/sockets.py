"""Announcements within one machine, beside a SQLite file: every process that listens owns a datagram socket.

The sockets are in a folder beside the database; whoever commits writes to those it concerns. A
datagram may be lost (a full buffer, a dying process), so every listener also looks at the
ledger now and then: correctness comes from the ledger, speed from here.
"""

import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from celeriac.broker.announcements import Ear, News, by_ear, decode, encode
from celeriac.errors import CannotStart

# Linux allows 107 bytes for a socket's path, macOS 103.
_PATH_LIMIT = 100
_DATAGRAM_ITEMS = 400
_BUFFER_BYTES = 1 << 20


def folder_of(ledger_url: str) -> Path:
    """Return the folder of the sockets of all processes that share this ledger, made if needed (0700)."""
    beside = Path(ledger_url.removeprefix("sqlite:///")).absolute().with_suffix(".news")
    if len(os.fsencode(beside)) + 24 > _PATH_LIMIT:
        name = hashlib.sha256(str(beside).encode()).hexdigest()[:16]
        beside = Path(tempfile.gettempdir()) / f"celeriac-{os.getuid()}-{name}"
    try:
        beside.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        raise CannotStart(
            f"There is no folder {beside.parent} for the ledger. Make it with `celeriac migrate`."
        ) from None
    if beside.stat().st_uid != os.getuid():
        raise PermissionError(f"{beside} belongs to somebody else")
    return beside


class SocketListener:
    """A process's ear: a socket to wait on with any event loop, and what it heard."""

    def __init__(self, ledger_url: str, ear: Ear) -> None:
        self._path = folder_of(ledger_url) / f"{ear}{os.getpid():x}-{os.urandom(3).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind(str(self._path))
        self._pid = os.getpid()

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is news."""
        return self._socket.fileno()

    def receive(self) -> list[News]:
        """Return all news that has arrived; never waits."""
        heard = []
        while True:
            try:
                heard.append(decode(self._socket.recv(_BUFFER_BYTES)))
            except (BlockingIOError, OSError):
                return heard
            except msgspec.DecodeError:
                heard.append(News())

    def poke(self) -> None:
        """Make this listener readable: the way to wake its own event loop."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(encode(News()), str(self._path))

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        if os.getpid() == self._pid:
            self._path.unlink(missing_ok=True)


class SocketAnnouncer:
    """Tells every listener of a ledger what concerns it; never waits and never fails."""

    def __init__(self, ledger_url: str) -> None:
        self._folder = folder_of(ledger_url)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    def close(self) -> None:
        """Tell nobody any more."""
        self._socket.close()

    def announce(self, news: News) -> None:
        """Tell workers of queues and cancels, hubs of jobs that moved, keepers of the next due moment."""
        if not news:
            return
        ears = self._ears()
        for ear, part in by_ear(news, _DATAGRAM_ITEMS):
            self._tell(ears.get(ear, ()), part)

    def _ears(self) -> dict[str, list[str]]:
        ears: dict[str, list[str]] = {}
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                ears.setdefault(entry.name[:1], []).append(entry.path)
        return ears

    def _tell(self, paths: Iterable[str], news: News) -> None:
        message = encode(news)
        for path in paths:
            try:
                self._socket.sendto(message, path)
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(OSError):
                    os.unlink(path)  # its process is gone
            except OSError:
                pass  # its buffer is full: it will wake up anyway
