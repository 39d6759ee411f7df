"""A cancel or a retry of everything that matches a filter: asked for once, worked off by the server.

Called by `jobs cancel` and `jobs retry`. It asks first, then follows the operation's counts to
the end; Ctrl-C stops the following, never the operation.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from rich.status import Status

from celeriac.cli.following import LOOK_SECONDS, interruptible
from celeriac.cli.options import Server
from celeriac.cli.output import count, notes, print_json, suggest

if TYPE_CHECKING:
    from celeriac.client import Client

PEEK = 200
PATIENCE_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind: its verb, the client's method that begins it, the states it concerns, and how it is told."""

    verb: str
    method: str
    states: str
    done: str
    moved: str


OPEN = "scheduled,queued,running,retrying"
CANCEL = Operation("Cancel", "cancel_all", OPEN, "cancelled", "cancelled, or told to stop")
RETRY = Operation("Retry", "retry_all", "failed,cancelled", "retried", "queued again")


def operate(
    kind: Operation, server: Server, *, filter: dict[str, Any], everything: bool, yes: bool, as_json: bool
) -> int:
    """Ask, begin the operation, follow it to its end, and tell its counts; returns the exit code."""
    stuck = [state for state in filter.get("state", "").split(",") if state and state not in kind.states.split(",")]
    if stuck:
        states = kind.states.replace(",", ", ")
        raise click.UsageError(f"A job that is {stuck[0]} cannot be {kind.done}. Only these can: {states}.")
    client = server.client()
    filter = {"state": kind.states, **filter}  # a job that cannot be moved need not be looked at
    if not yes and not _confirmed(kind, client, filter):
        notes().print("Nothing was done.")
        return 0
    begin: Callable[..., dict[str, Any]] = getattr(client, kind.method)
    done = _follow(client, begin(**filter))
    if as_json:
        print_json(done)
        return 0
    told = f", {done['refused']:,} not, because of their state" if done["refused"] else ""
    click.echo(f"{count(done['moved'], 'job')} {kind.moved}{told}.")
    suggest("celeriac jobs")
    return 0


def _confirmed(kind: Operation, client: "Client", filter: dict[str, Any]) -> bool:
    found = len(list(islice(client.jobs(**filter, limit=PEEK), PEEK)))
    if not found:
        notes().print("No job matches now.")
        return False
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at. Say --yes, or look first with `celeriac jobs`.")
    number = count(found, "job") if found < PEEK else f"{PEEK} jobs or more"
    return click.confirm(f"{kind.verb} {number}?", err=True)


def _follow(client: "Client", operation: dict[str, Any]) -> dict[str, Any]:
    told = f"The operation {operation['id']} goes on by itself."
    looks = 0
    with interruptible(told), Status("", console=notes()) as line:
        while operation["state"] != "done":
            number = operation["moved"] + operation["refused"]
            slow = not number and looks > PATIENCE_LOOKS
            line.update(f"{number:,} jobs so far" + (" (a keeper works it off; is one running?)" if slow else ""))
            time.sleep(LOOK_SECONDS)
            looks += 1
            operation = client.operation(operation["id"])
    return operation
