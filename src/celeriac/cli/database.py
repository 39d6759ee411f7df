"""Opening the ledger for a command, without making a database by accident.

SQLite makes a file for whoever opens one; a command that only looks must not. Used by every
command that works on the ledger directly.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.errors import CannotStart

if TYPE_CHECKING:
    from celeriac.ledger import Ledger
    from celeriac.settings import Settings


def sqlite_file(settings: "Settings") -> Path | None:
    """Return the file of an SQLite ledger, or None for another database."""
    if not settings.ledger_url.startswith("sqlite"):
        return None
    return Path(settings.ledger_url.partition("///")[2])


def open_existing(settings: "Settings") -> "Ledger":
    """Return the ledger of the settings, which must be at this version.

    Raises:
        CannotStart: when there is no database yet.
        LedgerVersion: when it is older or newer than this program.
    """
    from celeriac.ledger import migrations, open_ledger

    file = sqlite_file(settings)
    if file is not None and not file.exists():
        raise CannotStart(f"There is no database at {file}. Make it with `celeriac migrate`, or start `celeriac dev`.")
    ledger = open_ledger(settings.ledger_url)
    migrations.check(ledger)
    return ledger
