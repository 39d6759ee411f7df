"""`celeriac dev APP`: web, one worker node and the keeper for one app, reloaded when its files change.

The embedded shape: SQLite in the home folder, no service to install. Next: supervisor/.
"""

from pathlib import Path

import click

from celeriac.cli.options import WORDS, app_argument, load_settings, settings_options


@click.command("dev")
@app_argument
@settings_options
@click.option("-Q", "--queues", type=WORDS, default=(), help="Queues to work on; else all queues of the app.")
@click.option("-c", "--concurrency", type=click.IntRange(1, 1000), default=2, show_default=True, help="Jobs at a time.")
@click.option("--reload/--no-reload", default=True, show_default=True, help="Reload when Python files here change.")
def command(
    app: str | None, host: str | None, port: int | None, home: Path | None, queues: tuple[str, ...], concurrency: int,
    reload: bool,
) -> None:  # fmt: skip
    """Run everything for APP (module:attribute), and reload it when its files change.

    Without APP it is CELERIAC_APP. Prints a link that logs your browser in. Ctrl-C lets running
    jobs finish; a second one ends at once, and what was running starts again next time.
    """
    from celeriac.cli.service import take_title
    from celeriac.cli.supervisor import Node, Plan, supervise

    settings = load_settings(host=host, port=port, home=home, app=app)
    take_title(f"dev {settings.app}")
    node = Node("worker", queues, concurrency)
    supervise(Plan("dev", settings, settings.app, (node,), reload=reload))
