"""`celeriac watch ID`: a job's history and progress, live, until it ends.

Next: following.py.
"""

import click

from celeriac.cli.following import finish, follow
from celeriac.cli.options import Server, json_option, server_options


@click.command("watch")
@click.argument("id")
@json_option
@server_options
@click.pass_context
def command(ctx: click.Context, id: str, as_json: bool, server: Server) -> None:
    """Follow the job ID until it ends, with its events and progress on stderr and its result on stdout.

    Exits with 1 when it failed or was cancelled. Ctrl-C ends the watching, not the job.
    """
    ctx.exit(finish(follow(server.client(), id, history=not as_json), as_json))
