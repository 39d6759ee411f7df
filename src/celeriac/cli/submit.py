"""`celeriac submit TASK name=value …`: one job from the command line, and its result; or many from a file.

The server is the one of the home folder, or CELERIAC_URL. Next: arguments.py for what the values
mean, following.py for the waiting, lines.py for files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.arguments import arguments, moment, seconds
from celeriac.cli.options import Server, json_option, server_options
from celeriac.cli.output import print_json, suggest

if TYPE_CHECKING:
    from celeriac.client import Client


@click.command("submit")
@click.argument("task", required=False)
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--args", "whole", metavar="JSON", help="All arguments as a JSON object or array, or @file.")
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
    help="A job for each line of JSON; - is stdin.",
)  # fmt: skip
@click.option("--wait/--no-wait", default=None, help="Wait for the result (default), or print the id at once.")
@click.option("--follow", is_flag=True, help="Wait, and print the job's history meanwhile.")
@click.option("--queue", help="Queue; else the one its cost or its task leads to.")
@click.option("--priority", type=int, help="Higher goes first.")
@click.option("--delay", metavar="DURATION", help="Start after 90, 30s, 10m, 2h or 1d.")
@click.option(
    "--run-at", metavar="MOMENT", help="Start at this moment, as 2030-01-31T09:00 (local time without a zone)."
)
@click.option(
    "--expires-at", metavar="MOMENT", help="Cancel it unless it has started by then; a duration counts from now."
)
@click.option("--time-limit", metavar="DURATION", help="Kill it when it runs longer.")
@click.option("--max-attempts", type=click.IntRange(min=1), help="Run it so many times at most.")
@click.option("--tag", "tags", multiple=True, help="Tag to find it by; may be repeated.")
@click.option("--unique-key", help="Make no job while one with this key has not ended; answer that one.")
@click.option("--unique-window", metavar="DURATION", help="Nor within so long after that one was accepted.")
@click.option("--key", help="Idempotency key: the same key and arguments make one job only.")
@json_option
@server_options
@click.pass_context
def command(
    ctx: click.Context, /, task: str | None, values: tuple[str, ...], whole: str | None, file: Path | None,
    wait: bool | None, follow: bool, as_json: bool, server: Server, **options: Any,
) -> None:  # fmt: skip
    """Submit a job of TASK and wait for its result.

    A VALUE for a parameter that takes text is text. For any other, what is JSON (1, true, [1,2])
    is that JSON and the rest is text. @file is the text of a file, @- that of stdin.

    \b
      celeriac submit lcs a=banana b=ananas
      celeriac submit lcs a=@one.txt b=@two.txt --tag compare
      celeriac submit divide --args '[1, 3]' --delay 10m
      celeriac submit lcs --file pairs.jsonl

    In a file, each line holds the arguments of TASK, or without TASK a whole job as the API takes it.
    Exits with 1 when the job failed or was cancelled.
    """
    given = asked(options)
    client = server.client()
    if file is not None:
        if values or whole is not None:
            raise click.UsageError("--file has the arguments; leave NAME=VALUE and --args out.")
        from celeriac.cli import lines

        ctx.exit(lines.submit(client, file, task, given, wait=bool(wait or follow), as_json=as_json))
    if task is None:
        raise click.UsageError("Name a TASK, or give jobs with --file.")
    args = arguments(values, whole, texts_of(client, task) if values else frozenset())
    job = client.submit(task, args, **given)
    if follow or wait is not False:
        from celeriac.cli.following import finish
        from celeriac.cli.following import follow as follow_job

        ctx.exit(finish(follow_job(client, job["id"], history=follow), as_json))
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
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if "delay" in given and "run_at" in given:
        raise click.UsageError("Give --delay or --run-at, not both.")
    if "unique_window" in given and "unique_key" not in given:
        raise click.UsageError("--unique-window needs a --unique-key.")
    readers: dict[str, Callable[[Any], Any]] = {
        "delay": seconds, "run_at": moment, "expires_at": moment, "tags": list, "time_limit": seconds,
        "unique_window": seconds,
    }  # fmt: skip
    taken = {name: readers[name](value) if name in readers else value for name, value in given.items()}
    if "key" in taken:
        taken["idempotency_key"] = taken.pop("key")
    if "unique_key" in taken:
        window = {"window": taken.pop("unique_window")} if "unique_window" in taken else {}
        taken["unique"] = {"key": taken.pop("unique_key"), **window}
    return taken
