"""`celeriac keeper`: the keeper alone, as a service manager runs it.

It checks that the database is at this version and does not migrate. Next: keeper/.
"""

from pathlib import Path

import click

from celeriac.cli.database import open_existing
from celeriac.cli.options import home_option, load_settings


@click.command("keeper")
@home_option
@click.pass_context
def command(ctx: click.Context, home: Path | None) -> None:
    """Run the keeper: due jobs, rescue, retention.

    Run two or more on one database: one leads, another takes over when it is gone. Needs no app.
    """
    from celeriac.cli.service import begin

    settings = load_settings(home=home)
    begin("keeper", settings)
    from celeriac import keeper

    open_existing(settings)
    ctx.exit(keeper.run(settings))
