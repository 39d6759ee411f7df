"""`celeriac migrate`: bring the database to the version of this program.

An existing SQLite file is copied first. Run it once before the processes of a new version start, those of the version
before may go on meanwhile; and once more, with `--finish`, when none of them is left. `dev` and `demo` do all by
themselves.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.database import open_existing, sqlite_file
from celeriac.cli.options import home_option, json_option, load_settings
from celeriac.cli.output import console, print_json, suggest
from celeriac.cli.trouble import CANNOT_START
from celeriac.errors import CannotStart, LedgerVersion

if TYPE_CHECKING:
    from celeriac.settings import Settings


@click.command("migrate")
@home_option
@click.option("--check", "check_only", is_flag=True, help="Change nothing; exit 2 when there is something to do.")
@click.option("--finish", is_flag=True, help="Also take away what only processes of the version before needed.")
@json_option
@click.pass_context
def command(ctx: click.Context, home: Path | None, check_only: bool, finish: bool, as_json: bool) -> None:
    """Bring the database to this version, while processes of the version before go on.

    An SQLite file is copied beside itself before it is changed.
    """
    from celeriac.ledger import migrations, open_ledger
    from celeriac.settings import prepare_home

    settings = load_settings(home=home)
    if check_only:
        ctx.exit(_check(settings, as_json))
    prepare_home(settings.home)
    ledger = open_ledger(settings.ledger_url)
    copy = migrations.copy_before_upgrade(ledger)
    if copy and not as_json:
        console().print(f"Copied the database to {copy}.")
    changed = migrations.upgrade(ledger, finish)
    if as_json:
        print_json({**_standing(settings), "changed": changed, "copy": str(copy) if copy else None})
        return
    console().print(f"The database {'is now' if changed else 'was already'} at this version ({migrations.head()}).")
    if migrations.is_finished(ledger):
        suggest("celeriac check")
    else:
        console().print("Processes of the version before may go on. When none of them is left, finish it.")
        suggest("celeriac migrate --finish")


def _check(settings: "Settings", as_json: bool) -> int:
    """Say whether the database is at this version; returns the exit code.

    For a person, what is missing or of another version is raised: CannotStart or LedgerVersion.
    """
    from celeriac.ledger import migrations

    if as_json:
        standing = _standing(settings)
        print_json(standing)
        return 0 if standing["ok"] else CANNOT_START
    open_existing(settings)
    console().print(f"The database is at this version ({migrations.head()}).")
    return 0


def _standing(settings: "Settings") -> dict[str, Any]:
    """Return how far the database is, which may be missing, and with `message` what is to be done."""
    from celeriac.ledger import migrations, open_ledger

    file, message = sqlite_file(settings), None
    try:
        open_existing(settings)
    except (CannotStart, LedgerVersion) as error:
        message = error.detail
    ledger = None if file is not None and not file.exists() else open_ledger(settings.ledger_url)
    return {
        "ok": message is None,
        "revision": migrations.revision(ledger) if ledger else None,
        "needed": migrations.head(),
        "finished": ledger is not None and migrations.is_finished(ledger),
        "message": message,
    }
