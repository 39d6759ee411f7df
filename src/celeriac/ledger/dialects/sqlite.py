"""SQLite: one file, one writer at a time, and statements past SQLAlchemy, which would cost more than SQLite itself.

Whoever writes takes a turn first (`Turn`), so that "database is locked" reaches nobody.
"""

import errno
import fcntl
import os
import sqlite3
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from celeriac import clock
from celeriac.errors import CeleriacError
from celeriac.ledger.dialects.dialect import Rows, driver_within, full, unavailable

# How long a program that is not ours may hold the write lock before ours are refused; ours take turns.
BUSY_SECONDS = 5
# How long ours wait for their turn, less than a request waits for its answer. One that stands still in the midst of a
# write (SIGSTOP) keeps it.
TURN_SECONDS = 8
_STILL = f"somebody else has been writing to its file for {TURN_SECONDS} s, or stands still"
UNAVAILABLE = (sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


class SQLite:
    """A file, or the memory, as a ledger."""

    name = "sqlite"
    shared = False

    def __init__(self, url: str) -> None:
        # isolation_level=None: the BEGIN below is the only one.
        arguments = {
            "check_same_thread": False, "timeout": BUSY_SECONDS, "isolation_level": None, "cached_statements": 512,
        }  # fmt: skip
        self.writer = create_engine(url, poolclass=NullPool, connect_args=arguments)
        self.reader = self.snapshot = create_engine(
            url, poolclass=QueuePool, pool_size=8, max_overflow=24, connect_args=arguments
        )
        for engine, begin in ((self.writer, "BEGIN IMMEDIATE"), (self.reader, "BEGIN")):
            event.listen(engine, "connect", _prepare)
            event.listen(engine, "begin", _begin_with(begin))
        self._path = path = self.writer.url.database
        self.turn = Turn(Path(f"{path}.lock") if path else None)

    def alone(self) -> AbstractContextManager[None]:
        """Keep the other threads of this process from writing."""
        return self.turn.of_this_process()

    @property
    def holds_turn(self) -> bool:
        """Whether this very thread is in a write transaction."""
        return self.turn.mine

    def run(self, driver: Any, text: str, parameters: Any) -> Rows:
        """Execute a statement on the driver."""
        cursor = driver.cursor()
        cursor.row_factory = None  # a caller's own connection may have another
        cursor.execute(text, parameters)
        if cursor.description is None:
            return Rows([], cursor.rowcount)
        row = _row_type(tuple(column[0] for column in cursor.description))
        rows = [row(*values) for values in cursor.fetchall()]
        return Rows(rows, cursor.rowcount)

    def later(self, driver: Any, text: str, parameters: Any) -> None:
        """Execute a statement."""
        self.run(driver, text, parameters)

    def flush(self, driver: Any) -> None:
        """Do nothing: nothing waits."""

    def load(self, driver: Any, table: str, rows: Sequence[dict[str, Any]], key: str) -> list[int] | None:
        """Return None: an INSERT is the fastest there is."""
        return None

    def begin(self, driver: Any) -> None:
        """Do nothing: see `_begin_with`."""

    def in_transaction(self, driver: Any) -> bool:
        """Say whether a transaction has begun, or the driver begins one with the first write."""
        begins = driver.isolation_level is not None and getattr(driver, "autocommit", False) is not True
        return driver.in_transaction or begins

    def is_broken(self, driver: Any, error: BaseException) -> bool:
        """Say no: a file does not go away."""
        return False

    def driver_of(self, connection: Any) -> sqlite3.Connection:
        """Return the connection of sqlite3 within a caller's."""
        driver: sqlite3.Connection = driver_within(connection, sqlite3.Connection)
        return driver

    def meaning(self, error: Exception) -> Exception:
        """Return what a driver's error means to a caller."""
        if isinstance(error, CeleriacError):
            return error
        if isinstance(error, OSError):  # of the turn's lock file
            return full() if error.errno == errno.ENOSPC else unavailable(error)
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else None
        if primary == sqlite3.SQLITE_FULL:
            return full()
        if primary == sqlite3.SQLITE_BUSY:
            return unavailable(f"another program has been writing to its file for {BUSY_SECONDS} s")
        if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return unavailable(f"{self._path} is damaged or no database ({cause}); put a backup in its place")
        gone = isinstance(error, DBAPIError) and error.connection_invalidated
        return unavailable(f"{cause} ({self._path})") if primary in UNAVAILABLE or gone else error


@cache
def _row_type(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Row", names)


class Turn:
    """Whose turn it is to write: one thread of one process at a time, and nobody waits for ever.

    SQLite's own busy handler sleeps and may starve a writer for seconds (measured: 1,900 ms at
    four busy writers; with this lock 36 ms, docs/decisions/0001-ledger-schema.md). A POSIX lock
    wakes its waiters at once and dies with its process; it is not inherited by forks.
    """

    def __init__(self, path: Path | None) -> None:
        self._thread = threading.Lock()
        self._owner: int | None = None
        self._lock = _Lock(path) if path else None

    @property
    def mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
        deadline = clock.monotonic() + TURN_SECONDS
        self._enter(TURN_SECONDS)
        try:
            if self._lock and not self._lock.take(deadline - clock.monotonic()):
                raise unavailable(_STILL)
        except BaseException:
            self._leave()
            raise

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.give_back()
        self._leave()

    @contextmanager
    def of_this_process(self) -> Iterator[None]:
        """Keep the other threads of this process from writing."""
        self._enter(-1)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, seconds: float) -> None:
        if self.mine:  # also a finalizer that runs in the midst of it; waiting would be for ever
            raise RuntimeError("This thread is writing to the ledger already: a transaction cannot hold another.")
        if not self._thread.acquire(timeout=seconds):
            raise unavailable(_STILL)
        self._owner = threading.get_ident()

    def _leave(self) -> None:
        self._owner = None
        self._thread.release()


class _Lock:
    """A lock file. Who does not get it at once waits beside a thread that waits for it, since that cannot be ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._changed = threading.Condition()
        self._wanted = self._waits = self._got = False
        self._thread: threading.Thread | None = None

    def take(self, seconds: float) -> bool:
        """Take the lock; return whether that was in time. One thread at a time calls this."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._changed:
            if not self._waits and self._at_once(self._file):
                return True
            self._wanted = True
            try:
                if self._thread is None or not self._thread.is_alive():  # nor is it in a fork
                    self._waits = False
                    self._thread = threading.Thread(
                        target=self._wait, args=[self._file], name="celeriac-turn", daemon=True
                    )
                    self._thread.start()
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._got, seconds)
                return self._got
            except BaseException:  # Ctrl-C, a time limit: nobody has it then
                if self._got:
                    self.give_back()
                raise
            finally:
                self._got = self._wanted = False

    def give_back(self) -> None:
        """Let the next one have it."""
        assert self._file is not None
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _at_once(self, file: int) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # by POSIX either
            return False
        return True

    def _wait(self, file: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted and not self._got)
                self._waits = True
            fcntl.lockf(file, fcntl.LOCK_EX)
            with self._changed:
                self._waits = False
                if self._wanted:
                    self._got = True
                    self._changed.notify_all()
                else:  # whoever wanted it has given up
                    fcntl.lockf(file, fcntl.LOCK_UN)


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # The keeper checkpoints every second; a commit does it itself only when there is no keeper for a while.
    connection.execute("PRAGMA wal_autocheckpoint = 16000")
    connection.execute("PRAGMA cache_size = -4000")


def _begin_with(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin
