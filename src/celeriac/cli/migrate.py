"""`celeriac migrate`: bring the database to the version of this program.

An existing SQLite file is copied first. Run it once before the processes of a new version start;
`dev` and `demo` do it by themselves.
"""

from pathlib import Path

import click

from celeriac.cli.database import open_existing
from celeriac.cli.options import home_option, load_settings
from celeriac.cli.output import console, suggest


@click.command("migrate")
@home_option
@click.option("--check", "check_only", is_flag=True, help="Change nothing; exit 1 when there is something to do.")
def command(home: Path | None, check_only: bool) -> None:
    """Bring the database to this version.

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
    changed = migrations.upgrade(ledger)
    console().print(f"The database {'is now' if changed else 'was already'} at this version ({migrations.head()}).")
    suggest("celeriac check")
