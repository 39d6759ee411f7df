"""Bringing a database to the schema this program knows, from inside the package, while others go on working.

`celeriac migrate` calls `upgrade`; `dev` and `demo` do so by themselves, after a copy of the SQLite file. Every other
process only checks. A revision comes in two steps: `upgrade` adds what its programs need, and those of the revision
before work on; `contract`, when none of them is left, takes away what only they needed. Next: steps.py, which does it.
"""

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, inspect, text

from celeriac.errors import LedgerVersion
from celeriac.ledger.store import Ledger

HEAD = "0003"


class Standing(NamedTuple):
    """How far a database is; nothing of it when it is empty. Revisions are compared as text."""

    floor: str | None  # the oldest revision whose programs may work on it
    made: str | None  # the newest revision whose programs may
    tells_both: bool = True  # until revision 0003 the two were one


def standing(connection: Connection) -> Standing:
    """Return how far a database is."""
    seen = inspect(connection)
    if not seen.has_table("alembic_version"):
        return Standing(None, None)
    both = any(column["name"] == "made" for column in seen.get_columns("alembic_version"))
    made = "made" if both else "version_num"
    row = connection.execute(text(f"SELECT version_num, {made} FROM alembic_version")).first()
    return Standing(row[0], row[1] or row[0], both) if row else Standing(None, None)


def head() -> str:
    """Return the revision of this program."""
    return HEAD


def revision(ledger: Ledger) -> str | None:
    """Return the newest revision whose programs may work on the database, or None when it is empty."""
    with ledger.reading() as connection:
        return standing(connection).made


def is_finished(ledger: Ledger) -> bool:
    """Say whether nothing is left in the database that only older programs need."""
    with ledger.reading() as connection:
        return (standing(connection).floor or "") >= HEAD


def upgrade(ledger: Ledger, finish: bool = False) -> bool:
    """Make what this program needs; return whether there was anything to do.

    An empty database is finished at once. In another one what the programs of the revision before need stays,
    unless it is to be finished: then none of them may run any more. Repeated after a kill, it goes on.

    Raises LedgerVersion when the database is too new for this program.
    """
    from celeriac.ledger.migrations import steps

    with ledger.reading() as connection:
        before = standing(connection)
    _refuse_newer(before)
    return steps.take(ledger, HEAD, finish or before.made is None)


def check(ledger: Ledger) -> None:
    """Raise LedgerVersion, with the command to type, unless this program may work on the database."""
    with ledger.reading() as connection:
        before = standing(connection)
    _refuse_newer(before)
    if before.made is None or before.made < HEAD:
        state = "is empty" if before.made is None else f"is at revision {before.made}, this program needs {HEAD}"
        raise LedgerVersion(f"The database {state}. Run `celeriac migrate` first.")


def copy_before_upgrade(ledger: Ledger) -> Path | None:
    """Copy an existing SQLite file that is about to be migrated; return the copy's path."""
    before = revision(ledger)
    if ledger.dialect != "sqlite" or before is None or before >= HEAD:
        return None
    path = Path(ledger.url.removeprefix("sqlite:///"))
    copy = path.with_name(f"{path.name}.before-{HEAD}")
    ledger.copy(copy)
    return copy


def _refuse_newer(before: Standing) -> None:
    if before.floor is not None and before.floor > HEAD:
        raise LedgerVersion(
            f"The database is at revision {before.floor}, which this version of Celeriac does not know. "
            "Install the version that wrote it, or a newer one."
        )
