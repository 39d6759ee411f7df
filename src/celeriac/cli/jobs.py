"""`celeriac jobs`: the newest jobs as a table, and below it what is done with single ones, or with all of a filter.

Everything goes over HTTP, so it works from any machine with a token. Next: operations.py for the
moves on a filter.
"""

import shlex
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Any

import click

from celeriac.cli.options import Server, filter_options, json_option, server_options
from celeriac.cli.output import STATE_STYLES, Column, console, count, local, notes, print_json, shown, suggest, table
from celeriac.cli.trouble import FAILED, tell
from celeriac.errors import CeleriacError
from celeriac.states import State

ids_argument = click.argument("ids", nargs=-1, metavar="[ID]…")
all_option = click.option("--all", "everything", is_flag=True, help="All jobs, without a filter.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")


class Jobs(click.Group):
    """The commands below `jobs`; a job's id among them is an easy slip."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that is called. Raises UsageError for another word."""
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. A job is shown by `celeriac jobs show {shlex.quote(args[0])}`.")
        return super().resolve_command(ctx, args)


@click.group("jobs", cls=Jobs, invoke_without_command=True)
@filter_options
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many at most.")
@json_option
@server_options
@click.pass_context
def command(ctx: click.Context, /, filter: dict[str, Any], limit: int, as_json: bool, server: Server) -> None:
    """List jobs, newest first; with a command, show, cancel or retry them."""
    if ctx.invoked_subcommand is not None:
        if filter:
            raise click.UsageError(f"Write --{next(iter(filter))} behind `{ctx.invoked_subcommand}`.")
        ctx.obj = server
        return
    jobs = islice(server.client().jobs(**filter), limit)
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
@server_options
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
@server_options
def events(server: Server, id: str, after: int, as_json: bool) -> None:
    """Print the history of the job ID."""
    from celeriac.cli.following import event_line

    out = console()
    for event in server.client().events(id, after):
        print_json(event) if as_json else out.print(event_line(event))
    if not as_json:
        suggest(f"celeriac jobs show {id}")


@command.command("cancel")
@ids_argument
@filter_options
@all_option
@yes_option
@json_option
@server_options
@click.pass_context
def cancel(ctx: click.Context, /, server: Server, ids: tuple[str, ...], as_json: bool, **which: Any) -> None:
    """Cancel jobs, by ID or all that match a filter; a running one is told to stop, and killed if it does not.

    What waits for a job in its chain or chord is given up with it, and its number told.

    With a filter it asks first, and concerns the jobs that are there now and have not ended.

    \b
      celeriac jobs cancel 019a7c1e-7b1c-7d30-8a55-5f2c5e0b9a11
      celeriac jobs cancel --state queued --task render
    """
    from celeriac.cli.operations import CANCEL, operate

    ctx.exit(
        operate(CANCEL, server, as_json=as_json, **which)
        if _chosen(ids, **which)
        else _each(server.client().cancel, ids, as_json)
    )


@command.command("retry")
@ids_argument
@filter_options
@all_option
@yes_option
@json_option
@server_options
@click.pass_context
def retry(ctx: click.Context, /, server: Server, ids: tuple[str, ...], as_json: bool, **which: Any) -> None:
    """Run failed or cancelled jobs again, under their own ids: by ID, or all that match a filter.

    With a filter it asks first, and concerns the jobs that have failed or were cancelled by now.

    \b
      celeriac jobs retry 019a7c1e-7b1c-7d30-8a55-5f2c5e0b9a11
      celeriac jobs retry --state failed --since 2h
    """
    from celeriac.cli.operations import RETRY, operate

    ctx.exit(
        operate(RETRY, server, as_json=as_json, **which)
        if _chosen(ids, **which)
        else _each(server.client().retry, ids, as_json)
    )


def _chosen(ids: tuple[str, ...], filter: dict[str, Any], everything: bool, yes: bool) -> bool:
    """Say whether jobs are chosen by a filter and not by their ids; it has to be one of the two."""
    by_filter = bool(filter) or everything
    if by_filter and ids:
        raise click.UsageError("Give ids or a filter, not both.")
    if not by_filter and not ids:
        raise click.UsageError("Say which jobs: their ids, a filter such as --task NAME, or --all.")
    return by_filter


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
        print_json(job) if as_json else click.echo(f"{id} is {_now(job)}{_rest(job)}.")
    if not as_json:
        suggest(f"celeriac watch {last}" if not code else "celeriac jobs")
    return code


def _now(job: dict[str, Any]) -> str:
    if job["state"] != State.RUNNING:
        return str(job["state"])
    slow = ": its worker's pool cannot end it from outside, so it stops where it next reports progress"
    return f"running, and told to stop{slow if job.get('cooperative') else ''}"


def _rest(job: dict[str, Any]) -> str:
    """Return what a cancel did to the rest of a chain or chord; of a running job that is known when it has stopped."""
    number = job.get("also_count", 0)
    return f", and so {'is' if number == 1 else 'are'} {count(number, 'job')} behind it" if number else ""


def _show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        notes().print("No jobs.")
        return
    styles = [STATE_STYLES.get(job["state"], "") for job in rows]
    table([
        Column("id", [job["id"] for job in rows]),
        Column("task", [job["task"] for job in rows], drop=1, least=8),
        Column("state", [job["state"] + _share(job) for job in rows], styles=styles),
        Column("queue", [job["queue"] for job in rows], drop=2, least=6),
        Column("submitted", [local(job["created_at"]) for job in rows], drop=3),
        Column("took", [_took(job) for job in rows], drop=4),
    ])  # fmt: skip


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

    sheet = Table(box=None, pad_edge=False, show_header=False)
    sheet.add_column(style="dim", no_wrap=True)
    sheet.add_column(overflow="fold")
    for name, value in job.items():
        if value in (None, [], {}) and name != "result":
            continue
        text = local(value) if name.endswith("_at") else _flat(value)
        sheet.add_row(name, Text(text, style=STATE_STYLES.get(text, "") if name == "state" else ""))
    console().print(sheet)


def _flat(value: Any) -> str:
    """Return a field for people; an error's traceback stands on lines of its own."""
    if isinstance(value, dict) and value.get("traceback"):
        rest = {name: item for name, item in value.items() if name != "traceback"}
        return f"{shown(rest)}\n{value['traceback'].rstrip()}"
    return shown(value)
