"""`celeriac migrate`: bring the database to the version of this program.

An existing SQLite file is copied first. Run it once before the processes of a new version start, those of the version
before may go on meanwhile; and once more, with `--finish`, when none of them is left. `dev` and `demo` do all by
themselves.
"""

from pathlib import Path

import click

from celeriac.cli.database import open_existing
from celeriac.cli.options import home_option, load_settings
from celeriac.cli.output import console, suggest


@click.command("migrate")
@home_option
@click.option("--check", "check_only", is_flag=True, help="Change nothing; exit 1 when there is something to do.")
@click.option("--finish", is_flag=True, help="Also take away what only processes of the version before needed.")
def command(home: Path | None, check_only: bool, finish: bool) -> None:
    """Bring the database to this version, while processes of the version before go on.

    An SQLite file is copied beside itself before it is changed.
    """
    from celeriac.ledger import migrations, open_ledger
    from celeriac.settings import prepare_home

    settings = load_settings(home=home)
    if check_only:
        open_existing(settings)
        console().print(f"The database is at this version ({migrations.head()}).")
        return
    prepare_home(settings.home)
    ledger = open_ledger(settings.ledger_url)
    copy = migrations.copy_before_upgrade(ledger)
    if copy:
        console().print(f"Copied the database to {copy}.")
    changed = migrations.upgrade(ledger, finish)
    console().print(f"The database {'is now' if changed else 'was already'} at this version ({migrations.head()}).")
    if migrations.is_finished(ledger):
        suggest("celeriac check")
    else:
        console().print("Processes of the version before may go on. When none of them is left, finish it.")
        suggest("celeriac migrate --finish")
