"""`celeriac watch`: one job's history and progress, or many jobs' bars, live, until they end.

Next: following.py for one job, crowd.py for many.
"""

from typing import Any

import click

from celeriac.cli.options import Server, filter_options, json_option, server_options


@click.command("watch")
@click.argument("ids", nargs=-1, metavar="[ID]…")
@filter_options
@json_option
@server_options
@click.pass_context
def command(ctx: click.Context, /, ids: tuple[str, ...], filter: dict[str, Any], as_json: bool, server: Server) -> None:
    """Follow jobs until they end: one with its events, several with a bar each, or all that match a filter now.

    Those of a filter that have ended already count.

    \b
      celeriac watch 019a7c1e-7b1c-7d30-8a55-5f2c5e0b9a11
      celeriac watch --batch 019a7c1e-7c02-7e44-9d0e-0b6f0a2f6d3c
      celeriac watch --task render --since 1h

    Exits with 1 when one of them failed or was cancelled. Ctrl-C ends the watching, not the jobs.
    """
    from celeriac.cli import crowd, following

    if bool(ids) == bool(filter):
        raise click.UsageError("Say which jobs: ids, or a filter such as --batch ID; not both.")
    client = server.client()
    if filter:
        ctx.exit(crowd.by_filter(client, filter, as_json))
    if len(ids) > 1:
        ctx.exit(crowd.by_ids(client, ids, as_json))
    ctx.exit(following.finish(following.follow(client, ids[0], history=not as_json), as_json))
