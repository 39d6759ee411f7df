"""The database under the ledger: engines, transactions, and what differs between SQLite and Postgres.

One Ledger per process and URL. Moves run in a Transaction, which gathers the events, the
count deltas and the announcements of all moves in it and writes each kind with one
statement before it commits. A writer on SQLite takes a turn first (see `_Turn`), so that
"database is locked" reaches nobody. Next: group.py, which puts many moves into one transaction.
"""

import errno
import fcntl
import os
import sqlite3
import threading
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.failpoints import failpoint
from celeriac.jobs import Kind
from celeriac.ledger.sql import Insert, Sql, as_json

Item = TypeVar("Item")
Answer = TypeVar("Answer")
# A move takes many items at once and answers each, in order, with a value or the error that befell it.
Move: TypeAlias = Callable[["Transaction", Sequence[Item]], list[Answer | Exception]]

_INSERT_EVENTS = Insert("events", job="int", number="int", at="int", kind="text", data="text")
_INSERT_DELTAS = Insert("count_deltas", state="text", queue="text", task="text", jobs="int")


class Rows:
    """What a statement answered on SQLite, read through its driver; as much of SQLAlchemy's result as we use."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        row = _row_type(tuple(column[0] for column in cursor.description)) if cursor.description else None
        self._rows = [] if row is None else [row(*values) for values in cursor.fetchall()]
        self.rowcount = cursor.rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        """Return all rows."""
        return self._rows

    def first(self) -> Any:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None


@cache
def _row_type(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Row", names)


class Transaction:
    """One write transaction: run statements, tell what happened, and it is written and announced as a whole."""

    def __init__(self, connection: Connection, max_deaths: int = 3) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        # SQLAlchemy costs more for a small statement than SQLite does (0001), so hot ones go past it.
        self._sqlite: Any = connection.connection.driver_connection if self.dialect == "sqlite" else None
        self.wakes: set[str] = set()  # queues that got work
        self.ends: dict[str, int] = {}  # job id -> number of its final event
        self.steps: dict[str, int] = {}  # job id -> number of its newest event
        self.cancels: set[str] = set()  # workers with a job to cancel
        self.max_deaths = max_deaths
        self.due_at: int | None = None  # the earliest moment that a job now waits for
        self._events: list[dict[str, Any]] = []
        self._deltas: Counter[tuple[str, str, str]] = Counter()

    def run(self, statement: Sql, /, **parameters: Any) -> Rows | CursorResult[Any]:
        """Execute a statement. A list given as `rows` or `each` is passed as JSON."""
        for name in ("rows", "each"):
            if name in parameters and not isinstance(parameters[name], str):
                parameters[name] = as_json(parameters[name])
        if self._sqlite is not None:
            return Rows(self._sqlite.execute(statement.text("sqlite"), parameters))
        return self.connection.execute(statement.on(self.dialect), parameters)

    def record(self, job: int, number: int, at: int, kind: Kind, data: dict[str, Any] | None = None) -> None:
        """Append an event to a job's history."""
        text = None if data is None else as_json(data)
        self._events.append({"job": job, "number": number, "at": at, "kind": kind, "data": text})

    def count(self, state: str, queue: str, task: str, jobs: int) -> None:
        """Note that so many more (or fewer) jobs are in this state."""
        self._deltas[state, queue, task] += jobs

    def wait_until(self, at: int | None) -> None:
        """Note that a job now waits for this moment, so that the keeper looks up in time."""
        if at is not None and (self.due_at is None or at < self.due_at):
            self.due_at = at

    def flush(self) -> None:
        """Write the gathered events and count deltas."""
        if self._events:
            self.run(_INSERT_EVENTS, rows=self._events)
        deltas = [
            {"state": state, "queue": queue, "task": task, "jobs": jobs}
            for (state, queue, task), jobs in self._deltas.items()
            if jobs
        ]
        if deltas:
            self.run(_INSERT_DELTAS, rows=deltas)
        self._events.clear()
        self._deltas.clear()


class _Turn:
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


class Ledger:
    """The durable record. Safe to share between threads; not between processes, see `ledger.open`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.max_deaths = 3
        self.wired = ExitStack()  # what `instance.connect` has tied to it
        self.announce: Callable[[Transaction], None] | None = None  # told of each commit
        self._writer, self._reader = _engines(url)
        self.dialect = self._writer.dialect.name
        path = self._writer.url.database
        self._turn = _Turn(Path(f"{path}.lock") if self.dialect == "sqlite" and path else None)
        self._connection: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run a write transaction: commits at the end, then announces; rolls back on any error.

        Raises:
            LedgerFull, LedgerUnavailable: nothing was written.
        """
        with _translated(), self._turn:
            connection = self._write_connection()
            try:
                with connection.begin():
                    transaction = Transaction(connection, self.max_deaths)
                    yield transaction
                    transaction.flush()
                    if self.dialect == "sqlite":
                        failpoint("before-commit")
            except DBAPIError as error:
                if error.connection_invalidated or self.dialect != "sqlite":
                    self._drop_connection()
                raise
            if self.dialect != "sqlite":
                self._drop_connection()
        failpoint("after-commit")
        if self.announce is not None:
            self.announce(transaction)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for reading; readers never wait for writers."""
        with _translated(), self._reader.connect() as connection:
            yield connection

    def do(self, move: Move[Item, Answer], item: Item) -> Answer:
        """Make one move in a transaction of its own and return its answer (or raise its error)."""
        with self.transaction() as transaction:
            [answer] = move(transaction, [item])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def checkpoint(self) -> None:
        """Fold SQLite's write-ahead log into the file; writers go on meanwhile."""
        if self.dialect == "sqlite":
            with _translated(), closing(self._reader.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def copy(self, path: Path) -> None:
        """Copy a SQLite ledger to a file, whole and as of one moment, whoever writes meanwhile."""
        source, target = self._reader.raw_connection(), sqlite3.connect(path)
        try:
            source.driver_connection.backup(target)  # type: ignore[union-attr]
        finally:
            target.close()
            source.close()

    def close(self) -> None:
        """Close every connection, and what announces its commits."""
        self.announce = None
        self.wired.close()
        with self._turn:
            self._drop_connection()
            self._writer.dispose()
            self._reader.dispose()

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """Hold no connection while this process forks.

        SQLite keeps in memory which locks its process has. A child would inherit that as its own
        (https://www.sqlite.org/howtocorrupt.html, 2.6) and find the ledger locked for ever.
        """
        if self._turn.mine:  # a thread that forks inside its transaction cannot wait for itself
            yield
            return
        with self._turn:
            self._drop_connection()
            self._reader.dispose()
            yield

    def _write_connection(self) -> Connection:
        if self._connection is None:
            self._connection = self._writer.connect()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _engines(url: str) -> tuple[Engine, Engine]:
    if not url.startswith("sqlite"):
        engine = create_engine(url, pool_size=8, pool_pre_ping=True)
        return engine, engine
    # autocommit=None and isolation_level=None: SQLAlchemy's BEGIN below is the only one.
    arguments = {"check_same_thread": False, "timeout": 30, "isolation_level": None}
    writer = create_engine(url, poolclass=NullPool, connect_args=arguments)
    reader = create_engine(url, poolclass=QueuePool, pool_size=8, max_overflow=24, connect_args=arguments)
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_with(begin))
    return writer, reader


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # The keeper checkpoints every second; a commit does it itself only when there is no keeper for a while.
    connection.execute("PRAGMA wal_autocheckpoint = 16000")
    connection.execute("PRAGMA cache_size = -4000")


def _begin_with(statement: str) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _meaning(error, error.orig, error.connection_invalidated) from error
    except sqlite3.Error as error:
        raise _meaning(error, error) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LedgerFull("The disk under the ledger is full. Free some space; nothing was accepted.") from error
        raise LedgerUnavailable(f"The ledger cannot be used now: {error}. Nothing was accepted.") from error


def _meaning(error: Exception, cause: BaseException | None, gone: bool = False) -> Exception:
    """Return what a driver's error means to a caller; faults in the data or in us stay as they are."""
    code = getattr(cause, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary == sqlite3.SQLITE_FULL or "No space left" in str(cause):
        return LedgerFull("The disk under the ledger is full. Free some space; nothing was accepted.")
    unavailable = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
                   sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)  # fmt: skip
    if primary in unavailable or gone:
        return LedgerUnavailable(f"The ledger cannot be used now: {cause}. Nothing was accepted.")
    return error
