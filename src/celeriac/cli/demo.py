"""`celeriac demo`: the demo that ships with Celeriac, all of it with one command.

Two worker nodes show routing by size: `small` runs two short jobs at a time, `large` one long one.
Next: supervisor/.
"""

from pathlib import Path

import click

from celeriac.cli.options import load_settings, settings_options

APP = "celeriac.demo.tasks:app"


@click.command("demo")
@settings_options
def command(host: str | None, port: int | None, home: Path | None) -> None:
    """Start the demo: its tasks, two workers, a web page.

    Prints a link that logs your browser in. Everything it writes is in the home folder
    (.celeriac); Ctrl-C ends it and loses nothing.
    """
    from celeriac.cli.service import take_title
    from celeriac.cli.supervisor import Node, Plan, supervise
    from celeriac.demo import PAGE

    take_title("demo")
    supervise(
        Plan(
            "demo",
            load_settings(host=host, port=port, home=home, app=APP),
            APP,
            nodes=(Node("small", ("small",), 2), Node("large", ("large",), 1)),
            pages=PAGE,
            example="celeriac submit lcs a=banana b=ananas",
        )
    )
