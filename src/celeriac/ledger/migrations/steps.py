"""The steps of a migration, one at a time and one process at a time, each in a transaction.

On Postgres everybody else goes on meanwhile: indexes are built beside the work, before the step that needs them, and
a step that would wait for a table waits only briefly, for whoever comes after it stands behind it. A database that is
empty, and SQLite, take all steps in one transaction.
"""

import logging
import pkgutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from celeriac.errors import LedgerBusy
from celeriac.ledger.migrations import standing, versions
from celeriac.ledger.store import Ledger

log = logging.getLogger(__name__)

LOCK_MILLISECONDS = 300  # how long a step waits for a table, and others behind it
PAUSE_SECONDS = 0.7
TRIES = 600

_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtext('celeriac migrate'))")
_VALID = text(
    "SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " WHERE relname = :name AND pg_table_is_visible(pg_class.oid)"
)


@dataclass(frozen=True, slots=True)
class Step:
    """Half a revision: what it does, the indexes to build before, and the column that tells that it is done."""

    revision: str
    act: Callable[[], None]
    column: str
    indexes: dict[str, str] = field(default_factory=dict)


def scripts() -> list[ModuleType]:
    """Return the revisions, oldest first."""
    names = sorted(module.name for module in pkgutil.iter_modules(versions.__path__))
    return [import_module(f"{versions.__name__}.{name}") for name in names]


def pending(connection: Connection, head: str, finish: bool) -> Iterator[Step]:
    """Yield the steps still to take up to `head`, whose own contraction only follows if it is to be finished."""
    floor, made, _ = standing(connection)
    for script in scripts():
        revision = script.revision
        if made is None or revision > made:
            yield Step(revision, script.upgrade, "made", getattr(script, "INDEXES", {}))
        if (floor is None or revision > floor) and (finish or revision < head):
            contract = getattr(script, "contract", lambda: None)
            yield Step(revision, contract, "version_num", getattr(script, "CONTRACT_INDEXES", {}))


def take(ledger: Ledger, head: str, finish: bool) -> bool:
    """Take the steps to `head`; return whether there were any."""
    total, number = 0, -1
    while number:
        with ledger.transaction() as transaction:
            number = _take_some(ledger, transaction.connection, head, finish)
        if number < 0:
            time.sleep(0.1)
        total += max(number, 0)
    return total > 0


def _take_some(ledger: Ledger, connection: Connection, head: str, finish: bool) -> int:
    """Take the next step, or all of them where nobody can be in the way; return how many, or -1 while others do.

    Who waits does so outside of a transaction: the building of an index waits for all that have looked at anything.
    """
    if ledger.dialect == "postgresql" and not connection.execute(_ALONE).scalar():
        return -1
    todo = list(pending(connection, head, finish))
    if ledger.dialect == "sqlite" or standing(connection).made is None:
        for step in todo:
            _act(connection, step)
        return len(todo)
    for step in todo[:1]:
        # Also ends the look of the last statement, which this transaction would hold until its next.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        for name, definition in step.indexes.items():
            _build(ledger, name, definition)
        _act_between(connection, step)
    return len(todo[:1])


def _build(ledger: Ledger, name: str, definition: str) -> None:
    """Build an index beside the work of others; one that a kill has left half built is begun anew."""
    with ledger.reading() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")  # it takes as long as it takes, and waits for others
        connection.exec_driver_sql("SET lock_timeout = 0")
        valid = connection.execute(_VALID, {"name": name}).scalar()
        if valid is False:
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        if not valid:
            log.info("Building the index %s", name)
            connection.exec_driver_sql(definition.format("CONCURRENTLY"))
        connection.exec_driver_sql("RESET statement_timeout")
        connection.exec_driver_sql("RESET lock_timeout")


def _act_between(connection: Connection, step: Step) -> None:
    """Take a step in a moment at which nobody holds what it needs; let others pass between two tries."""
    for _ in range(TRIES):
        try:
            with connection.begin_nested():
                connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}"))
                _act(connection, step)
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock not available
                raise
            time.sleep(PAUSE_SECONDS)
    raise LedgerBusy(
        "A transaction has held the ledger's tables all the time, so they could not be changed. End it (see"
        " pg_stat_activity), then repeat `celeriac migrate`: it goes on where it was."
    )


def _act(connection: Connection, step: Step) -> None:
    with Operations.context(MigrationContext.configure(connection)):
        step.act()
    before, values = standing(connection), {"revision": step.revision}
    if before.made is None:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY, made VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:revision, :revision)"), values)
    elif not before.tells_both:
        connection.execute(text("ALTER TABLE alembic_version ADD COLUMN made VARCHAR(32)"))
    connection.execute(text(f"UPDATE alembic_version SET {step.column} = :revision"), values)
