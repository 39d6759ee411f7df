"""Bringing a database to the schema this program knows, with Alembic, from inside the package.

`celeriac migrate` calls `upgrade`; `dev` and `demo` do so by themselves, after a copy of the
SQLite file. Every other process only checks, and refuses a database that is older or newer.
"""

import shutil
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from celeriac.errors import LedgerVersion
from celeriac.ledger.store import Ledger


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def head() -> str:
    """Return the revision this program knows."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def revision(ledger: Ledger) -> str | None:
    """Return the revision the database is at, or None when it is empty."""
    with ledger.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(ledger: Ledger) -> bool:
    """Bring the database to `head`; return whether there was anything to do.

    Raises LedgerVersion when the database is newer than this program.
    """
    before = revision(ledger)
    if before == head():
        return False
    _refuse_unknown(before)
    with ledger.transaction() as transaction:
        config = _config()
        config.attributes["connection"] = transaction.connection
        command.upgrade(config, "head")
    return True


def check(ledger: Ledger) -> None:
    """Raise LedgerVersion, with the command to type, unless the database is at `head`."""
    before = revision(ledger)
    if before == head():
        return
    _refuse_unknown(before)
    state = "is empty" if before is None else f"is at revision {before}, this program needs {head()}"
    raise LedgerVersion(f"The database {state}. Run `celeriac migrate` first.")


def copy_before_upgrade(ledger: Ledger) -> Path | None:
    """Copy an existing SQLite file that is about to be migrated; return the copy's path."""
    before = revision(ledger)
    if ledger.dialect != "sqlite" or before in (None, head()):
        return None
    ledger.checkpoint()
    path = Path(ledger.url.removeprefix("sqlite:///"))
    copy = path.with_name(f"{path.name}.before-{head()}")
    shutil.copy2(path, copy)
    return copy


def _refuse_unknown(before: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if before is not None and before not in known:
        raise LedgerVersion(
            f"The database is at revision {before}, which this version of Celeriac does not know. "
            "Install the version that wrote it, or a newer one."
        )
