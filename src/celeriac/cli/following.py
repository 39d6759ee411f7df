"""Following a job to its end on the terminal: its events as lines, its progress as a bar.

Called by `submit` and `watch`; crowd.py follows many at once. Without a terminal there is no bar, only
lines. Ctrl-C stops the following, never the job.
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from celeriac.cli.output import STATE_STYLES, console, local, notes, print_json, shown, suggest
from celeriac.cli.trouble import FAILED, INTERRUPTED
from celeriac.states import State, is_final

if TYPE_CHECKING:
    from celeriac.client import Client

LOOK_SECONDS = 0.3
KIND_STYLES = {"log": "default", "failed": "red", "succeeded": "green", "cancelled": "bright_black"}


def follow(client: "Client", id: str, history: bool = False) -> dict[str, Any]:
    """Show a job's progress, and with `history` its events, until it ends; return the job."""
    job: dict[str, Any] = client.job(id)
    number = 0
    told = f"The job goes on. Follow it with `celeriac watch {id}`, end it with `celeriac jobs cancel {id}`."
    with interruptible(told), bars() as bar:
        task = bar.add_task(job["task"], total=None, note="")
        while True:
            if history:
                number = print_events(client, id, number)
            if is_final(job["state"]):
                return job
            update(bar, task, job)
            job = client.job(id, wait=LOOK_SECONDS)


def print_events(client: "Client", id: str, after: int) -> int:
    """Print a job's events behind number `after`; return the number of the last one."""
    out = notes()
    for event in client.events(id, after):
        after = event["number"]
        if event["kind"] != "progress":
            out.print(event_line(event))
    return after


def event_line(event: dict[str, Any]) -> Text:
    """Return an event as one line."""
    line = Text().append(f"{local(event['at'])}  ", style="dim")
    line.append(str(event["kind"]).ljust(16), style=KIND_STYLES.get(event["kind"], "cyan"))
    return line.append(_told(event.get("data")))


def finish(job: dict[str, Any], as_json: bool) -> int:
    """Print how a job ended: the result on stdout, a failure on stderr; return the exit code."""
    succeeded = job["state"] == State.SUCCEEDED
    if as_json:
        print_json(job)
    elif succeeded:
        console().print(shown(job["result"]), soft_wrap=True)
        suggest(f"celeriac jobs show {job['id']}")
    else:
        _explain(job)
    return 0 if succeeded else FAILED


def _explain(job: dict[str, Any]) -> None:
    error = job.get("error") or {}
    if error.get("traceback"):
        notes().print(Text(error["traceback"].rstrip(), style="dim"))
    reason = ": ".join(str(part) for part in (error.get("type"), error.get("message")) if part)
    click.echo(f"celeriac: The job {job['id']} {_ended(job)}{f' ({reason})' if reason else ''}.", err=True)
    suggest(f"celeriac jobs retry {job['id']}", "runs it again")


def _ended(job: dict[str, Any]) -> str:
    return "was cancelled" if job["state"] == State.CANCELLED else "failed"


def _told(data: Any) -> str:
    """Return an event's data in a line: a log's text as it is, fields as name=value."""
    if not isinstance(data, dict):
        return "" if data is None else shown(data)
    if "text" in data or "message" in data:
        return str(data.get("text", data.get("message"))).replace("\n", " ⏎ ")
    return " ".join(f"{name}={_brief(value)}" for name, value in data.items() if value is not None)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\n", " ⏎ ")
    return text if len(text) <= 200 else text[:199] + "…"


class NameColumn(TextColumn):
    """What a bar stands for, and behind it the state of the job, if it is one."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False)

    def render(self, task: Task) -> Text:
        """Return the name as it is, with the state in its colour."""
        line = super().render(task)
        state = task.fields.get("state")
        return line.append(f" {state}", style=STATE_STYLES.get(state, "default")) if state else line


def bars() -> Progress:
    """Return the display of bars, on stderr; nothing is drawn without a terminal."""
    out = notes()
    return Progress(
        SpinnerColumn(),
        NameColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )


def say(bar: Progress, line: str) -> None:
    """Print a line of the results; above the bars, where they are on the same terminal."""
    if bar.disable or not sys.stdout.isatty():
        click.echo(line)
    else:
        bar.console.print(Text(line), soft_wrap=True)


def update(bar: Progress, task: Any, job: dict[str, Any]) -> None:
    """Draw the progress of a job."""
    progress = job.get("progress") or {}
    bar.update(
        task, state=job["state"], total=progress.get("total"), completed=progress.get("value") or 0,
        note=progress.get("note") or "",
    )  # fmt: skip


@contextmanager
def interruptible(told: str) -> Iterator[None]:
    """Let Ctrl-C end the following with a sentence and the terminal as it was."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        notes().print(told)
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, before)
