"""The ledger of a process: transactions for those who write, connections for those who read.

One Ledger per process and URL. Moves run in a Transaction, which gathers the events, the
count deltas and the announcements of all moves in it and writes each kind with one
statement before it commits. What differs between the databases is in `dialects/`. Next:
group.py, which puts many moves into one transaction.
"""

import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
from sqlalchemy import Connection, RootTransaction

from celeriac.errors import CeleriacError, LedgerBusy, LedgerUnavailable, LedgerUncertain
from celeriac.failpoints import Injected, failpoint
from celeriac.jobs import Kind
from celeriac.ledger.backlog import Backlog
from celeriac.ledger.dialects import Dialect, Rows, dialect_of
from celeriac.ledger.sql import SPREAD_MAX, Insert, Sql, as_json

Item = TypeVar("Item")
Answer = TypeVar("Answer")
# A move takes many items at once and answers each, in order, with a value or the error that befell it.
Move: TypeAlias = Callable[["Transaction", Sequence[Item]], list[Answer | Exception]]

TRIES = 8
LOAD_MIN = 100
_joined: ContextVar[Any] = ContextVar("celeriac_joined", default=None)  # the driver's connection of a caller

_INSERT_EVENTS = Insert("events", job="int", number="int", at="int", kind="text", data="text")
_INSERT_DELTAS = Insert("count_deltas", state="text", queue="text", task="text", jobs="int")


class Transaction:
    """One write transaction: run statements, tell what happened, and it is written and announced as a whole."""

    def __init__(self, driver: Any, dialect: Dialect, max_deaths: int = 3, connection: Any = None) -> None:
        self._connection: Connection = connection
        self.dialect = dialect.name
        self.driver = driver
        self._dialect = dialect
        self.wakes: dict[str, list[str]] = {}  # queues that got work -> the jobs, where it is known which
        self.ends: dict[str, int] = {}  # job id -> number of its final event
        self.steps: dict[str, int] = {}  # job id -> number of its newest event
        self.cancels: set[str] = set()  # workers with a job to cancel
        self.max_deaths = max_deaths
        self.due_at: int | None = None  # the earliest moment that a job now waits for
        self._events: list[dict[str, Any]] = []
        self._deltas: Counter[tuple[str, str, str]] = Counter()

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's, unless the transaction is a caller's."""
        self._dialect.flush(self.driver)
        return self._connection

    def write(self, statement: Sql, /, **parameters: Any) -> None:
        """Execute a statement of which nobody reads the answer; Postgres is told of it together with the next one."""
        for text, values in self._bound(statement, parameters):
            self._dialect.later(self.driver, text, values)

    def run(self, statement: Sql, /, **parameters: Any) -> Rows:
        """Execute a statement; what is a list among the parameters is passed as JSON."""
        driver, run = self.driver, self._dialect.run
        first, *more = [run(driver, text, values) for text, values in self._bound(statement, parameters)]
        return first.followed_by(more)

    def _bound(self, statement: Sql, parameters: dict[str, Any]) -> list[tuple[str, Any]]:
        """Return a statement as it is executed; on SQLite one that adds very many rows in parts."""
        rows: Any = parameters.get("rows")
        if self.dialect == "sqlite" and isinstance(statement, Insert) and len(rows) > SPREAD_MAX:
            parts = [rows[i : i + SPREAD_MAX] for i in range(0, len(rows), SPREAD_MAX)]
            return [statement.bound(self.dialect, {"rows": part}) for part in parts]
        return [statement.bound(self.dialect, parameters)]

    def load(self, statement: Insert, rows: Sequence[dict[str, Any]], key: str = "") -> list[int] | None:
        """Add rows by a way that is faster for many; None if they are few, or it cannot be: then `run` the statement.

        With `key`, a column that the database numbers, return their numbers.
        """
        return self._dialect.load(self.driver, statement.table, rows, key) if len(rows) >= LOAD_MIN else None

    def record(self, job: int, number: int, at: int, kind: Kind, data: dict[str, Any] | None = None) -> None:
        """Append an event to a job's history."""
        text = None if data is None else as_json(data)
        self._events.append({"job": job, "number": number, "at": at, "kind": kind, "data": text})

    def amend(self, job: int, number: int, **more: Any) -> None:
        """Add to the data of an event that was recorded in this transaction."""
        for event in reversed(self._events):
            if (event["job"], event["number"]) == (job, number):
                event["data"] = as_json({**msgspec.json.decode(event["data"] or "{}"), **more})
                break

    def count(self, state: str, queue: str, task: str, jobs: int) -> None:
        """Note that so many more (or fewer) jobs are in this state."""
        self._deltas[state, queue, task] += jobs

    def wake(self, queue: str, *jobs: str) -> None:
        """Note that a queue got work: these jobs, or whatever is there."""
        self.wakes.setdefault(queue, []).extend(jobs)

    def wait_until(self, at: int | None) -> None:
        """Note that a job now waits for this moment, so that the keeper looks up in time."""
        if at is not None and (self.due_at is None or at < self.due_at):
            self.due_at = at

    def flush(self) -> None:
        """Write the gathered events and count deltas."""
        if self._events:
            self.write(_INSERT_EVENTS, rows=self._events)
        deltas = [
            {"state": state, "queue": queue, "task": task, "jobs": jobs}
            for (state, queue, task), jobs in self._deltas.items()
            if jobs
        ]
        if deltas:
            self.write(_INSERT_DELTAS, rows=deltas)
        self._events.clear()
        self._deltas.clear()


class Ledger:
    """The durable record. Safe to share between threads; not between processes, see `open_ledger`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.max_deaths = 3
        self.backlog = Backlog(self, sys.maxsize)  # `instance.connect` bounds it
        self.wired = ExitStack()  # what `instance.connect` has tied to it
        self.announce: Callable[[Transaction], None] | None = None  # told of each commit
        self.announce_joined: Callable[[Transaction], None] | None = None  # told within a caller's transaction
        self._dialect = dialect_of(url)
        self.dialect = self._dialect.name
        self._connection: Connection | None = None  # kept by the one writer of a SQLite file

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run a write transaction: commits at the end, then announces; rolls back on any error.

        Raises:
            LedgerFull, LedgerUnavailable, LedgerBusy: nothing was written.
            LedgerUncertain: the server has gone while it was to commit.
        """
        with self.writing() as connection, connection.begin() as begun:
            driver = connection.connection.driver_connection
            self._dialect.begin(driver)
            transaction = Transaction(driver, self._dialect, self.max_deaths, connection)
            yield transaction
            transaction.flush()
            failpoint("before-commit")
            self._commit(begun)
        if self.announce is not None:
            self.announce(transaction)

    def _commit(self, begun: RootTransaction) -> None:
        try:
            begun.commit()
            failpoint("after-commit")
        except Exception as error:
            meaning = self._dialect.meaning(error)
            lost = self._dialect.shared or isinstance(error, Injected)
            if lost and type(meaning) is LedgerUnavailable:
                raise LedgerUncertain from error
            raise

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the connection to write with, while it is this thread's turn."""
        with self._translated(), self._dialect.turn:
            connection = self._connection or self._dialect.writer.connect()
            if not self._dialect.shared:
                self._connection = connection
            try:
                yield connection
            except BaseException as error:
                driver = None if connection.invalidated else connection.connection.driver_connection
                if driver is not None and self._dialect.is_broken(driver, error):
                    connection.invalidate()
                if connection.invalidated:
                    self._drop_connection()
                raise
            finally:
                if self._dialect.shared:
                    connection.close()

    @contextmanager
    def joining(self, connection: Any) -> Iterator[None]:
        """Make the moves of this block in a transaction of the caller's own: they live or die with it.

        `connection` is a connection of psycopg or sqlite3 to the ledger's own database, or what Django or
        SQLAlchemy have around one. Workers are told by the commit; on SQLite they find the work when they
        next look, within a second. Raises TypeError for a connection to anything else, and CeleriacError where
        no transaction has been begun: in autocommit each statement would stand alone.
        """
        token = _joined.set(self._dialect.driver_of(connection))
        try:
            yield
        finally:
            _joined.reset(token)

    @contextmanager
    def _within(self, driver: Any) -> Iterator[Transaction]:
        if not self._dialect.in_transaction(driver):
            raise CeleriacError("This connection commits each statement by itself. Begin a transaction on it first.")
        transaction = Transaction(driver, self._dialect, self.max_deaths)
        with self._translated():
            yield transaction
            transaction.flush()
            if self.announce_joined is not None:
                self.announce_joined(transaction)

    @contextmanager
    def reading(self, whole: bool = False) -> Iterator[Connection]:
        """Give a connection for reading; readers never wait for writers.

        With `whole` all statements see the ledger as of one moment (on SQLite they always do).
        """
        reader = self._dialect.snapshot if whole else self._dialect.reader
        with self._translated(), reader.connect() as connection:
            yield connection

    def do(self, move: Move[Item, Answer], item: Item) -> Answer:
        """Make one move in a transaction of its own (or the caller's, see `joining`); return its answer or raise it."""
        joined = _joined.get()
        if joined is not None:
            with self._within(joined) as transaction:
                [answer] = move(transaction, [item])
        else:
            answer = self._done(move, item)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _done(self, move: Move[Item, Answer], item: Item) -> Answer | Exception:
        for pause in again_after():
            try:
                with self.transaction() as transaction:
                    [answer] = move(transaction, [item])
                    return answer
            except LedgerBusy:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("again_after ends with None")

    def checkpoint(self) -> None:
        """Fold SQLite's write-ahead log into the file; writers go on meanwhile."""
        if self.dialect == "sqlite":
            with self._translated(), closing(self._dialect.reader.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def copy(self, path: Path) -> None:
        """Copy a SQLite ledger to a file, whole and as of one moment, whoever writes meanwhile."""
        source, target = self._dialect.reader.raw_connection(), sqlite3.connect(path)
        try:
            source.driver_connection.backup(target)  # type: ignore[union-attr]
        finally:
            target.close()
            source.close()

    def knock(self) -> None:
        """Meet what somebody meets who has no connection yet. Raises LedgerUnavailable where none is to be had."""
        if self._dialect.shared:
            pool = self._dialect.writer.pool.recreate()
            with self._translated():
                pool.connect().close()
            pool.dispose()

    def close(self) -> None:
        """Close every connection, and what announces its commits."""
        self.announce = self.announce_joined = None
        self.wired.close()
        with self._dialect.alone():
            self._drop_connection()
            self._dialect.writer.dispose()
            self._dialect.reader.dispose()

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """Hold nothing while this process forks that the child could not have as well.

        SQLite keeps in memory which locks its process has. A child would inherit that as its own
        (https://www.sqlite.org/howtocorrupt.html, 2.6) and find the ledger locked for ever.
        """
        # A thread that forks inside its transaction cannot wait for itself.
        if self._dialect.shared or self._dialect.holds_turn:
            yield
            return
        with self._dialect.alone():
            self._drop_connection()
            self._dialect.reader.dispose()
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            meaning = self._dialect.meaning(error)
            if meaning is error:
                raise
            raise meaning from error

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def again_after() -> Iterator[float | None]:
    """Yield how long to wait before a transaction that met another one is tried again; None after the last try."""
    for number in range(TRIES - 1):
        yield random.uniform(0.001, 0.005) * 2**number
    yield None
