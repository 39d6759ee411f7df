"""SQLite: one file, one writer at a time, and statements past SQLAlchemy, which would cost more than SQLite itself.

Whoever writes takes a turn first (`Turn`), so that "database is locked" reaches nobody.
"""

import errno
import fcntl
import os
import sqlite3
import threading
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from celeriac.errors import CeleriacError
from celeriac.ledger.dialects.dialect import Rows, driver_within, full, unavailable

# How long a program that is not ours may hold the write lock before ours are refused; ours take turns.
BUSY_SECONDS = 5
UNAVAILABLE = (
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT,
)  # fmt: skip


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
        path = self.writer.url.database
        self.turn = Turn(Path(f"{path}.lock") if path else None)

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
        gone = isinstance(error, DBAPIError) and error.connection_invalidated
        return unavailable(cause) if primary in UNAVAILABLE or gone else error


@cache
def _row_type(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Row", names)


class Turn:
    """Whose turn it is to write: one thread of one process at a time.

    SQLite's own busy handler sleeps and may starve a writer for seconds (measured: 1,900 ms at
    four busy writers; with this lock 36 ms, docs/decisions/0001-ledger-schema.md). A POSIX lock
    wakes its waiters at once and dies with its process; it is not inherited by forks.
    """

    def __init__(self, path: Path | None) -> None:
        self._thread = threading.Lock()
        self._owner: int | None = None
        self._path = path
        self._file: int | None = None

    @property
    def mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
        if self.mine:  # also a finalizer that runs in the midst of it; waiting would be for ever
            raise RuntimeError("This thread is writing to the ledger already: a transaction cannot hold another.")
        self._thread.acquire()
        self._owner = threading.get_ident()
        if self._path is not None:
            try:
                if self._file is None:
                    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.lockf(self._file, fcntl.LOCK_EX)
            except BaseException:
                self._owner = None
                self._thread.release()
                raise

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._owner = None
        self._thread.release()


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
