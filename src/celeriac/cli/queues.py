"""`celeriac queues`: the queues with what waits and who works on them; pause and resume.

A paused queue takes jobs and gives none out; what runs goes on.
"""

import shlex
from typing import Any

import click

from celeriac.cli.options import Server, json_option, server_options
from celeriac.cli.output import Column, local, notes, print_json, suggest, table

names_argument = click.argument("names", nargs=-1, required=True, metavar="NAME…")


@click.group("queues", invoke_without_command=True)
@json_option
@server_options
@click.pass_context
def command(ctx: click.Context, server: Server, as_json: bool) -> None:
    """List the queues; with a command, pause and resume them."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = server
        return
    queues = server.client().queues()
    if as_json:
        for queue in queues:
            print_json(queue)
        return
    _show(queues)
    forlorn = [queue["name"] for queue in queues if queue.get("workers") == 0 and queue["counts"].get("queued")]
    if forlorn:
        notes().print(f"No worker listens to {', '.join(forlorn)}.", style="yellow")
        suggest(f"celeriac worker APP -Q {shlex.quote(','.join(forlorn))}")
    elif queues:
        suggest(f"celeriac jobs --queue {shlex.quote(queues[0]['name'])}")
    else:
        suggest("celeriac submit TASK name=value")


@command.command("pause")
@names_argument
@json_option
@server_options
def pause(server: Server, names: tuple[str, ...], as_json: bool) -> None:
    """Let no job of these queues start any more; what runs goes on, and new ones are taken."""
    client = server.client()
    for name in names:
        queue = client.pause(name)
        print_json(queue) if as_json else click.echo(f"{name} is paused.")
    if not as_json:
        suggest(shlex.join(["celeriac", "queues", "resume", *names]))


@command.command("resume")
@names_argument
@json_option
@server_options
def resume(server: Server, names: tuple[str, ...], as_json: bool) -> None:
    """Let the jobs of these queues start again."""
    client = server.client()
    for name in names:
        queue = client.resume(name)
        print_json(queue) if as_json else click.echo(f"{name} is no longer paused.")
    if not as_json:
        suggest("celeriac queues")


def _show(queues: list[dict[str, Any]]) -> None:
    if not queues:
        notes().print("No queues.")
        return
    paused = ["paused" if queue["paused_at"] else "" for queue in queues]
    table([
        Column("queue", [queue["name"] for queue in queues], least=12),
        Column("", paused, styles=["yellow"] * len(queues)),
        *(Column(state, _numbers(queues, state), drop) for state, drop in (
            ("queued", 0), ("running", 0), ("retrying", 3), ("scheduled", 3), ("failed", 4),
        )),
        Column("workers", [str(queue.get("workers", "")) for queue in queues], 1),
        Column("oldest waits since", [local(queue.get("oldest_queued_at")) for queue in queues], 2),
    ])  # fmt: skip


def _numbers(queues: list[dict[str, Any]], state: str) -> list[str]:
    return [f"{queue['counts'].get(state, 0):,}" for queue in queues]
