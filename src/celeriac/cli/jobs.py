"""`celeriac jobs`: the newest jobs as a table, and below it what is done with single ones.

Everything goes over HTTP, so it works from any machine with a token.
"""

from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Any

import click

from celeriac.cli.arguments import moment
from celeriac.cli.options import WORDS, Server, json_option, server_options
from celeriac.cli.output import STATE_STYLES, console, local, notes, print_json, shown, suggest
from celeriac.cli.trouble import FAILED, tell
from celeriac.errors import CeleriacError
from celeriac.states import State


@click.group("jobs", invoke_without_command=True)
@click.option("--state", type=WORDS, default=(), help=f"One or more of {', '.join(State)}.")
@click.option("--task", type=WORDS, default=(), help="Of these tasks.")
@click.option("--queue", type=WORDS, default=(), help="In these queues.")
@click.option("--owner", type=WORDS, default=(), help="Submitted by these owners.")
@click.option("--tag", type=WORDS, default=(), help="With one of these tags.")
@click.option("-q", "--q", metavar="TEXT", help="Whose id, task, tag or error type begins with this.")
@click.option("--since", metavar="MOMENT", help="Submitted since then; 2h means two hours ago.")
@click.option("--until", metavar="MOMENT", help="Submitted before then.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many at most.")
@json_option
@server_options
@click.pass_context
def command(ctx: click.Context, /, limit: int, as_json: bool, server: Server, **filters: Any) -> None:
    """List jobs, newest first; with a command, show, cancel or retry single ones."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = server
        return
    jobs = islice(server.client().jobs(**narrowed(filters)), limit)
    if as_json:
        for job in jobs:
            print_json(job)
        return
    rows = list(jobs)
    _show(rows)
    suggest(f"celeriac jobs show {rows[0]['id']}" if rows else "celeriac submit TASK name=value")


@command.command("show")
@click.argument("id")
@json_option
@click.pass_obj
def show(server: Server, id: str, as_json: bool) -> None:
    """Show the job ID with its arguments, its result or error, and where it is."""
    job = server.client().job(id)
    if as_json:
        print_json(job)
        return
    _describe(job)
    suggest(f"celeriac jobs events {id}")


@command.command("events")
@click.argument("id")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only those behind this number.")
@json_option
@click.pass_obj
def events(server: Server, id: str, after: int, as_json: bool) -> None:
    """Print the history of the job ID."""
    from celeriac.cli.following import event_line

    out = console()
    for event in server.client().events(id, after):
        print_json(event) if as_json else out.print(event_line(event))
    if not as_json:
        suggest(f"celeriac jobs show {id}")


@command.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@json_option
@click.pass_obj
@click.pass_context
def cancel(ctx: click.Context, server: Server, ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs; a running one is told to stop, and killed if it does not."""
    ctx.exit(_each(server.client().cancel, ids, as_json))


@command.command("retry")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@json_option
@click.pass_obj
@click.pass_context
def retry(ctx: click.Context, server: Server, ids: tuple[str, ...], as_json: bool) -> None:
    """Run failed or cancelled jobs again, under their own ids."""
    ctx.exit(_each(server.client().retry, ids, as_json))


def narrowed(filters: dict[str, Any]) -> dict[str, Any]:
    """Return the filters that were given, as the API takes them: names with commas, times as RFC 3339."""
    given = {name: value for name, value in filters.items() if value}
    return {
        name: moment(value, -1)
        if name in ("since", "until")
        else ",".join(value)
        if isinstance(value, tuple)
        else value
        for name, value in given.items()
    }


def _each(move: Callable[[str], Any], ids: tuple[str, ...], as_json: bool) -> int:
    """Make a move on each job; tell each error and go on. Returns the exit code."""
    code, last = 0, ids[-1]
    for id in ids:
        try:
            job = move(id)
        except CeleriacError as error:
            if error.code == "unreachable":
                raise
            tell(error)
            code = FAILED
            continue
        print_json(job) if as_json else click.echo(f"{id} is {_now(job)}.")
    if not as_json:
        suggest(f"celeriac watch {last}" if not code else "celeriac jobs")
    return code


def _now(job: dict[str, Any]) -> str:
    return "running, and told to stop" if job["state"] == State.RUNNING else str(job["state"])


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        notes().print("No jobs.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("id", "task", "state", "queue", "submitted", "took"):
        table.add_column(title, overflow="fold" if title == "id" else "ellipsis", no_wrap=title != "id")
    for job in rows:
        state = Text(job["state"], style=STATE_STYLES.get(job["state"], ""))
        queue, task = Text(job["queue"]), Text(job["task"])
        table.add_row(job["id"], task, state.append(_share(job)), queue, local(job["created_at"]), _took(job))
    console().print(table)


def _share(job: dict[str, Any]) -> str:
    progress = job.get("progress")
    if job["state"] != State.RUNNING or not progress or not progress.get("total"):
        return ""
    return f" {100 * progress['value'] / progress['total']:.0f} %"


def _took(job: dict[str, Any]) -> str:
    if not job.get("started_at") or not job.get("finished_at"):
        return ""
    length = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
    return f"{length.total_seconds():.1f} s"


def _describe(job: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in job.items():
        if value in (None, [], {}) and name != "result":
            continue
        text = local(value) if name.endswith("_at") else _flat(value)
        table.add_row(name, Text(text, style=STATE_STYLES.get(text, "") if name == "state" else ""))
    console().print(table)


def _flat(value: Any) -> str:
    """Return a field for people; an error's traceback stands on lines of its own."""
    if isinstance(value, dict) and value.get("traceback"):
        rest = {name: item for name, item in value.items() if name != "traceback"}
        return f"{shown(rest)}\n{value['traceback'].rstrip()}"
    return shown(value)
