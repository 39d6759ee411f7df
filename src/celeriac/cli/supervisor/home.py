"""The home folder, taken by one supervisor at a time, and the port its web process will have.

The lock is an flock, so it ends with its process however that dies; the file says who holds it,
for the sentence a second `celeriac dev` gets and for clients that look for the server.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from celeriac.errors import CannotStart
from celeriac.settings import Settings, prepare_home


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who runs on a home folder: its process id, its command and where its server answers."""

    pid: int
    command: str
    port: int
    url: str


@contextmanager
def taken(settings: Settings, command: str) -> Iterator[Settings]:
    """Take the home folder and a port, until the block ends; gives the settings with the real port.

    Raises:
        CannotStart: when somebody runs there already, or the port is not free.
    """
    home = prepare_home(settings.home)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _flock_soon(descriptor):
            raise CannotStart(_occupied(home, _read(home)))
        settings = settings.model_copy(update={"port": free_port(settings, command)})
        _write(descriptor, asdict(Tenant(os.getpid(), command, settings.port, url_of(settings))))
        try:
            yield settings
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def running(home: Path) -> Tenant | None:
    """Return who runs on a home folder, or None."""
    try:
        descriptor = os.open(home / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _flock(descriptor) else _read(home)
    finally:
        os.close(descriptor)


def free_port(settings: Settings, command: str) -> int:
    """Return the port the settings ask for, or any free one for 0.

    Raises:
        CannotStart: when it is taken (the sentence names one that is not) or the host is not ours.
    """
    try:
        return _bind(settings.host, settings.port)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise CannotStart(
                f"Port {settings.port} of {settings.host} is taken by another program. "
                f"Choose another, as in `celeriac {command} --port {_next_free(settings)}`."
            ) from None
        if number in (errno.EACCES, errno.EPERM):
            raise CannotStart(f"Port {settings.port} may not be opened by this user. Choose one above 1023.") from None
        raise CannotStart(f"This machine cannot listen on {settings.host!r}: {error}. Set CELERIAC_HOST.") from None


def url_of(settings: Settings) -> str:
    """Return the address of the web process as a browser on this machine types it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _occupied(home: Path, tenant: Tenant | None) -> str:
    who = f"`celeriac {tenant.command}` (process {tenant.pid}, port {tenant.port})" if tenant else "Another process"
    return f"{who} runs on the folder {home} already. Stop it first, or give this one its own --home and --port."


def _flock_soon(descriptor: int) -> bool:
    """Take the lock; `running` holds it for an instant to see whether it is free, which must refuse nobody."""
    for _ in range(10):
        if _flock(descriptor):
            return True
        time.sleep(0.02)
    return False


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(home: Path) -> Tenant | None:
    with suppress(OSError, ValueError, TypeError):
        return Tenant(**json.loads((home / "lock").read_text("utf-8")))
    return None


def _write(descriptor: int, content: dict[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(), 0)


def _bind(host: str, port: int) -> int:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
        return int(probe.getsockname()[1])


def _next_free(settings: Settings) -> int:
    for port in range(settings.port + 1, min(settings.port + 100, 65536)):
        with suppress(OSError):
            return _bind(settings.host, port)
    return 0
