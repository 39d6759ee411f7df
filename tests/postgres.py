"""A private Postgres for the tests: own folder, own port, own user, killed at the end; never the system's.

Needs only the installed binaries. As root it runs as the user `postgres`, since the server refuses root.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from instance import free_port

DATABASE = "celeriac"


def binaries() -> Path | None:
    """The folder with initdb and postgres, the newest version there is."""
    found = [Path(path) for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    return found[-1].parent if found else None


def required() -> bool:
    """Whether a missing service is a failure."""
    return os.environ.get("CELERIAC_REQUIRE_SERVICES") == "1"


class Server:
    """A running server, and ways to hurt it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._data = folder / "data"
        self._bin = binaries() or pytest.fail("Postgres is not installed: make services")
        self._options = options
        self.process: subprocess.Popen | None = None
        self._owner = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self._owner:
            shutil.chown(folder, **self._owner)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        )
        self.start()
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / command, *arguments],
            check=True,
            capture_output=True,
            cwd=self._folder,
            timeout=60,
            **self._owner,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [
            "fsync=off",
            "full_page_writes=off",
            "max_connections=200",
            "log_min_messages=fatal",
            *self._options,
        ]
        with open(self._folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    self._bin / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1", "-k", "",
                    *(word for setting in settings for word in ("-c", setting)),
                ],
                stdout=log, stderr=log, cwd=self._folder, **self._owner,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.conninfo("postgres")):
                return
            assert time.monotonic() < deadline, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop it: SIGINT is fast, SIGQUIT immediate (as a crash)."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def conninfo(self, database: str = DATABASE) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database and return its URL."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.conninfo(name)


@functools.cache
def server() -> Server:
    """The server that all tests of a session share; tests that hurt one start their own with `private`."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-pg-"))
    made = Server(folder)
    _open.callback(_end, made, folder)
    return made


@contextlib.contextmanager
def private(*options: str) -> Iterator[Server]:
    """Give a server of one's own."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-pg-"))
    made = Server(folder, *options)
    try:
        yield made
    finally:
        _end(made, folder)


class Ballast:
    """A file that leaves others no room."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def fill(self, but: int = 0) -> None:
        """Take all the room there is, but for so many bytes."""
        room = os.statvfs(self._path.parent)
        with contextlib.suppress(OSError):  # somebody was quicker
            self._path.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - but))

    def free(self) -> None:
        self._path.unlink()


@contextlib.contextmanager
def on_a_small_disk(*options: str) -> Iterator[tuple[Server, Ballast]]:
    """Give a server on a file system of its own, which is soon full."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m,mode=0755", "none", folder]
    if os.geteuid() or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        folder.rmdir()
        pytest.skip("only root may mount a small disk")
    try:
        (folder / "pg").mkdir()
        wal = ("wal_level=minimal", "max_wal_senders=0", "max_wal_size=32MB", "min_wal_size=32MB")
        made = Server(folder / "pg", *wal, *options)
        try:
            yield made, Ballast(folder)
        finally:
            made.stop(signal.SIGQUIT)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def _end(made: Server, folder: Path) -> None:
    made.stop(signal.SIGQUIT)
    shutil.rmtree(folder, ignore_errors=True)


_open = contextlib.ExitStack()


def close() -> None:
    """End the shared server."""
    _open.close()
