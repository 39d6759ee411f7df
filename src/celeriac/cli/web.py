"""`celeriac web APP`: the web process alone, as a service manager runs it.

It checks that the database is at this version and does not migrate. Next: web/.
"""

from pathlib import Path

import click

from celeriac.cli.database import open_existing
from celeriac.cli.options import app_argument, load_settings, settings_options


@click.command("web")
@app_argument
@settings_options
@click.option(
    "--pages", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of pages to serve at /."
)
def command(app: str | None, host: str | None, port: int | None, home: Path | None, pages: Path | None) -> None:
    """Run the web process of APP (module:attribute): the HTTP API.

    Any number of them may run on one database. SIGTERM and Ctrl-C end it after its open requests.
    """
    from celeriac.cli.service import begin

    settings = load_settings(host=host, port=port, home=home, app=app)
    begin("web", settings)
    from celeriac.app import load_app
    from celeriac.web import serve

    application = load_app(settings.app)
    open_existing(settings)
    serve(settings, application, pages)
