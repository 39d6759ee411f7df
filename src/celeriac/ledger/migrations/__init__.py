"""Bringing a database to the schema this program knows, with Alembic, from inside the package.

`celeriac migrate` calls `upgrade`; `dev` and `demo` do so by themselves, after a copy of the
SQLite file. Every other process only checks, and refuses a database that is older or newer;
for that it needs no Alembic, which would cost each of them eight megabytes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from celeriac.errors import LedgerVersion
from celeriac.ledger.store import Ledger

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0002"


def head() -> str:
    """Return the revision this program knows."""
    return HEAD


def revision(ledger: Ledger) -> str | None:
    """Return the revision the database is at, or None when it is empty."""
    with ledger.reading() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def upgrade(ledger: Ledger) -> bool:
    """Bring the database to `head`; return whether there was anything to do.

    Raises LedgerVersion when the database is newer than this program.
    """
    from alembic import command

    before = revision(ledger)
    if before == HEAD:
        return False
    _refuse_unknown(before)
    with ledger.transaction() as transaction:
        if ledger.dialect == "postgresql":  # another process may be at it
            transaction.connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('celeriac migrate'))"))
        config = _config()
        config.attributes["connection"] = transaction.connection
        command.upgrade(config, "head")
    return True


def check(ledger: Ledger) -> None:
    """Raise LedgerVersion, with the command to type, unless the database is at `head`."""
    before = revision(ledger)
    if before == HEAD:
        return
    _refuse_unknown(before)
    state = "is empty" if before is None else f"is at revision {before}, this program needs {HEAD}"
    raise LedgerVersion(f"The database {state}. Run `celeriac migrate` first.")


def copy_before_upgrade(ledger: Ledger) -> Path | None:
    """Copy an existing SQLite file that is about to be migrated; return the copy's path."""
    before = revision(ledger)
    if ledger.dialect != "sqlite" or before in (None, HEAD):
        return None
    path = Path(ledger.url.removeprefix("sqlite:///"))
    copy = path.with_name(f"{path.name}.before-{HEAD}")
    ledger.copy(copy)
    return copy


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def _refuse_unknown(before: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if before is not None and before not in known:
        raise LedgerVersion(
            f"The database is at revision {before}, which this version of Celeriac does not know. "
            "Install the version that wrote it, or a newer one."
        )
