"""`celeriac submit TASK name=value …`: one job from the command line, and its result.

The server is the one of the home folder, or CELERIAC_URL. Next: arguments.py for what the values
mean, following.py for the waiting.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.arguments import arguments, moment, seconds
from celeriac.cli.options import Server, json_option, server_options
from celeriac.cli.output import print_json, suggest

if TYPE_CHECKING:
    from celeriac.client import Client


@click.command("submit")
@click.argument("task")
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--args", "whole", metavar="JSON", help="All arguments as a JSON object or array, or @file.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the result, or print the id at once.")
@click.option("--queue", help="Queue; else the one its cost or its task leads to.")
@click.option("--priority", type=int, help="Higher goes first.")
@click.option("--delay", metavar="DURATION", help="Start after 90, 30s, 10m, 2h or 1d.")
@click.option(
    "--run-at", metavar="MOMENT", help="Start at this moment, as 2030-01-31T09:00 (local time without a zone)."
)
@click.option(
    "--expires-at", metavar="MOMENT", help="Cancel it unless it has started by then; a duration counts from now."
)
@click.option("--max-attempts", type=click.IntRange(min=1), help="Run it so many times at most.")
@click.option("--tag", "tags", multiple=True, help="Tag to find it by; may be repeated.")
@click.option("--key", help="Idempotency key: the same key and arguments make one job only.")
@json_option
@server_options
@click.pass_context
def command(
    ctx: click.Context, /, task: str, values: tuple[str, ...], whole: str | None, wait: bool, as_json: bool,
    server: Server, **options: Any,
) -> None:  # fmt: skip
    """Submit a job of TASK and wait for its result.

    A VALUE for a parameter that takes text is text. For any other, what is JSON (1, true, [1,2])
    is that JSON and the rest is text. @file is the text of a file, @- that of stdin.

    \b
      celeriac submit lcs a=banana b=ananas
      celeriac submit lcs a=@one.txt b=@two.txt --tag compare
      celeriac submit divide --args '[1, 3]' --delay 10m

    Exits with 1 when the job failed or was cancelled.
    """
    client = server.client()
    args = arguments(values, whole, texts_of(client, task) if values else frozenset())
    job = client.submit(task, args, **asked(options))
    if wait:
        from celeriac.cli.following import finish, follow

        ctx.exit(finish(follow(client, job["id"]), as_json))
    if as_json:
        print_json(job)
        return
    click.echo(job["id"])
    suggest(f"celeriac watch {job['id']}")


def texts_of(client: "Client", task: str) -> frozenset[str]:
    """Return the names of a task's parameters that take nothing but text."""
    for info in client.tasks():
        if info["name"] == task:
            properties: dict[str, Any] = info["schema"].get("properties", {})
            return frozenset(name for name, schema in properties.items() if schema.get("type") == "string")
    return frozenset()


def asked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as the client takes them."""
    if options["delay"] is not None and options["run_at"] is not None:
        raise click.UsageError("Give --delay or --run-at, not both.")
    readers: dict[str, Callable[[Any], Any]] = {"delay": seconds, "run_at": moment, "expires_at": moment, "tags": list}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    taken = {name: readers[name](value) if name in readers else value for name, value in given.items()}
    if "key" in taken:
        taken["idempotency_key"] = taken.pop("key")
    return taken
