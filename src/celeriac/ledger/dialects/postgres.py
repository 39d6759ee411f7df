"""Postgres by psycopg 3: several writers at once, statements prepared by the server, errors told by their SQLSTATE.

Through pgbouncer in transaction mode nothing may be prepared; `?prepare_threshold=0` in the URL says so.
"""

import contextlib
import select
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from celeriac.errors import CeleriacError, LedgerBusy
from celeriac.ledger.dialects.dialect import Rows, driver_within, full, unavailable

POOL = 8
# A request may wait this long for a connection, then it is told that the ledger is busy.
POOL_SECONDS = 5
CONNECT_SECONDS = 5
# Whatever we ask goes along an index. Without statistics (a young table, a queue that empties and fills) the
# planner reads whole tables instead, and a finish took 345 µs a job; so it took 100.
PLANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
# Serialization failure, deadlock, lock not available; a plan or a prepared statement that a migration made void.
AGAIN = {"40001", "40P01", "55P03", "0A000", "26000"}
FULL = {"53100"}
# Classes of SQLSTATE: connection, resources, object state, operator's intervention, system, read-only transaction.
UNAVAILABLE = ("08", "53", "55", "57", "58", "25006", "25P03", "28", "3D", "XX")


class Postgres:
    """A database of a Postgres server as a ledger."""

    name = "postgresql"
    shared = True
    holds_turn = False

    def __init__(self, url: str) -> None:
        made = make_url(url)
        threshold = int(str(made.query.get("prepare_threshold", "2")))
        self._through_bouncer = not threshold
        arguments = {
            "prepare_threshold": threshold or None,
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "celeriac",
            # A server that is gone without a word is noticed within half a minute.
            "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000,
        }  # fmt: skip
        if threshold:
            arguments["options"] = " ".join(f"-c {name}={value}" for name, value in PLANS.items())
        made = made.difference_update_query(["prepare_threshold"])
        self.writer = create_engine(
            made, pool_size=POOL, max_overflow=POOL, pool_timeout=POOL_SECONDS, pool_use_lifo=True,
            connect_args=arguments, skip_autocommit_rollback=True,
        )  # fmt: skip
        self.reader = self.writer.execution_options(isolation_level="AUTOCOMMIT")
        self.snapshot = self.writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        event.listen(self.writer, "checkout", _check)
        self.turn = contextlib.nullcontext()

    def run(self, driver: Any, text: str, parameters: Any) -> Rows:
        """Execute a statement on the driver."""
        cursor = driver.cursor(row_factory=namedtuple_row)
        cursor.execute(text, parameters)
        return Rows(cursor.fetchall() if cursor.description else [], cursor.rowcount)

    def begin(self, driver: Any) -> None:
        """Set for one transaction what a session behind pgbouncer cannot be told."""
        if self._through_bouncer:
            settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in PLANS.items())
            driver.execute(f"SELECT {settings}")

    def in_transaction(self, driver: Any) -> bool:
        """Say whether a transaction has begun, or the driver begins one with the next statement."""
        return not driver.autocommit or driver.info.transaction_status == TransactionStatus.INTRANS

    def is_broken(self, driver: Any) -> bool:
        """Say whether the server has gone from this connection."""
        return bool(driver.closed)

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
        if state in AGAIN:
            return LedgerBusy(f"The ledger is busy with the same jobs: {cause}. Nothing was accepted.")
        gone = isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)) and not state
        return unavailable(cause) if gone or state.startswith(UNAVAILABLE) else error


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
