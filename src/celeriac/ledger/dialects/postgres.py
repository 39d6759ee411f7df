"""Postgres by psycopg 3: several writers at once, statements prepared by the server, errors told by their SQLSTATE.

Through pgbouncer in transaction mode nothing may be prepared; `?prepare_threshold=0` in the URL says so.
"""

import contextlib
import re
import select
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from celeriac.errors import CeleriacError, LedgerBusy, LedgerLocked
from celeriac.ledger.dialects.dialect import Rows, driver_within, full, unavailable
from celeriac.ledger.dialects.session import Session

POOL = 8
# A request may wait this long for a connection, then it is told that the ledger is busy.
POOL_SECONDS = 5
CONNECT_SECONDS = 5
# Whatever we ask goes along an index. Without statistics (a young table, a queue that empties and fills) the
# planner reads whole tables instead, and a finish took 345 µs a job; so it took 100.
PLANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
# What somebody else holds is not waited for in a transaction that others wait for in turn; and one of ours whose
# process stands still (stopped, or its machine asleep) gives up what it holds before its jobs are to be rescued.
# A deadlock is told after one second (deadlock_timeout), and a wait for a lock ends behind that.
TIMEOUTS = {"statement_timeout": "30s", "lock_timeout": "1500ms", "idle_in_transaction_session_timeout": "8s"}
SESSION = {**PLANS, **TIMEOUTS}
READ_ONLY = "25006"
# Serialization failure, deadlock; a plan or a prepared statement that a migration made void.
AGAIN = {"40001", "40P01", "0A000", "26000"}
LOCKED = "55P03"
FULL = {"53100"}
# Classes of SQLSTATE: connection, resources, object state, operator's intervention, system, read-only transaction.
UNAVAILABLE = ("08", "53", "55", "57", "58", READ_ONLY, "25P03", "28", "3D", "XX")
_SEVERAL_HOSTS = re.compile(r"([^/]*//(?:[^@/]*@)?)([^/?]*,[^/?]*)([^?]*)\??(.*)")


class Postgres:
    """A database of a Postgres server as a ledger."""

    name = "postgresql"
    shared = True
    holds_turn = False

    def __init__(self, url: str) -> None:
        made = make_url(_spread(url))
        threshold = int(str(made.query.get("prepare_threshold", "2")))
        self._through_bouncer = not threshold
        arguments = {
            "prepare_threshold": threshold or None,
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "celeriac",
            # A server that is gone without a word is noticed within twelve seconds.
            "keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 2, "tcp_user_timeout": 12_000,
        }  # fmt: skip
        if threshold:
            arguments["options"] = " ".join(f"-c {name}={value}" for name, value in SESSION.items())
        made = made.difference_update_query(["prepare_threshold"])
        self.writer = create_engine(
            made, pool_size=POOL, max_overflow=POOL, pool_timeout=POOL_SECONDS, pool_use_lifo=True,
            connect_args=arguments, skip_autocommit_rollback=True,
        )  # fmt: skip
        self.reader = self.writer.execution_options(isolation_level="AUTOCOMMIT")
        self.snapshot = self.writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        event.listen(self.writer, "checkout", _check)
        event.listen(self.writer, "commit", self._commit)
        event.listen(self.writer, "rollback", _roll_back)
        self._sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()
        self.turn = contextlib.nullcontext()

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: connections are not shared by threads."""
        return contextlib.nullcontext()

    def run(self, driver: Any, text: str, parameters: Any) -> Rows:
        """Execute a statement: the short way on a connection of ours, as psycopg does on a caller's."""
        session = self._sessions.get(driver)
        if session is not None:
            return session.run(text, parameters)
        cursor = psycopg.RawCursor(driver, row_factory=namedtuple_row)
        cursor.execute(text, parameters)
        return Rows(cursor.fetchall() if cursor.description else [], cursor.rowcount)

    def later(self, driver: Any, text: str, parameters: Any) -> None:
        """Execute a statement, on a connection of ours together with the next one."""
        session = self._sessions.get(driver)
        if session is not None:
            session.later(text, parameters)
        else:
            self.run(driver, text, parameters)

    def flush(self, driver: Any) -> None:
        """Execute what waits."""
        session = self._sessions.get(driver)
        if session is not None:
            session.flush()

    def load(self, driver: Any, table: str, rows: Sequence[dict[str, Any]], key: str) -> list[int] | None:
        """Add many rows at once, on a connection of ours."""
        session = self._sessions.get(driver)
        return None if session is None else session.load(table, rows, key)

    def begin(self, driver: Any) -> None:
        """Begin; and set for one transaction what a session behind pgbouncer cannot be told."""
        if self._through_bouncer:
            settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in SESSION.items())
            driver.execute(f"SELECT {settings}")
            return
        session = self._sessions.get(driver)
        if session is None:
            session = self._sessions[driver] = Session(driver)
        session.begin()

    def _commit(self, connection: Connection) -> None:
        """Commit before psycopg does, which needs 40 µs more; it finds nothing left to commit."""
        session = self._sessions.get(connection.connection.driver_connection)
        if session is not None:
            session.commit()

    def in_transaction(self, driver: Any) -> bool:
        """Say whether a transaction has begun, or the driver begins one with the next statement."""
        return not driver.autocommit or driver.info.transaction_status == TransactionStatus.INTRANS

    def is_broken(self, driver: Any, error: BaseException) -> bool:
        """Say whether the server has gone from this connection, or can only be read since another one leads."""
        return bool(driver.closed) or getattr(getattr(error, "orig", error), "sqlstate", None) == READ_ONLY

    def driver_of(self, connection: Any) -> "psycopg.Connection[Any]":
        """Return the connection of psycopg within a caller's."""
        driver: psycopg.Connection[Any] = driver_within(connection, psycopg.Connection)
        return driver

    def meaning(self, error: Exception) -> Exception:
        """Return what a driver's error means to a caller."""
        if isinstance(error, CeleriacError):
            return error
        if isinstance(error, PoolTimeout):
            return LedgerBusy(f"All {2 * POOL} connections to the ledger are in use. Nothing was accepted.")
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, psycopg.Error):
            return unavailable(cause) if isinstance(error, OSError) else error
        state = cause.sqlstate or ""
        if state in FULL:
            return full()
        if state == LOCKED:
            return LedgerLocked("Another open transaction holds a row that this needs. Nothing was accepted.")
        if state in AGAIN:
            return LedgerBusy(f"The ledger is busy with the same jobs: {cause}. Nothing was accepted.")
        gone = isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)) and not state
        return unavailable(cause) if gone or state.startswith(UNAVAILABLE) else error


def _spread(url: str) -> str:
    """Return a URL of several hosts as SQLAlchemy takes it; libpq then goes to the one that can be written."""
    found = _SEVERAL_HOSTS.fullmatch(url)
    if found is None:
        return url
    head, hosts, database, query = found.groups()
    values = [query] if query else []
    if "target_session_attrs=" not in query:
        values.append("target_session_attrs=read-write")
    return f"{head}{database}?{'&'.join([*values, *(f'host={host}' for host in hosts.split(','))])}"


def _roll_back(connection: Connection) -> None:
    """Roll back before psycopg does, which would drop every prepared statement of the session with it."""
    driver: Any = None if connection.invalidated else connection.connection.driver_connection
    if driver is not None and driver.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        driver.pgconn.exec_(b"ROLLBACK")


def _check(connection: Any, _record: object, _proxy: object) -> None:
    """Notice a connection that the server has closed: it has something to read where nothing was asked.

    Costs two microseconds; a ping would cost a round trip for each transaction.
    """
    if not connection.closed:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if not poll.poll(0):
            return
    raise DisconnectionError
