"""How the commands look: two consoles, the colours of states, and the next useful command.

Results go to stdout, everything else to stderr, so that a pipe carries only results. Colours
vanish without a terminal and with NO_COLOR (rich sees to both).
"""

import json
import sys
from datetime import datetime
from typing import Any

import click
from rich.console import Console

PIPE_WIDTH = 1000
STATE_STYLES = {
    "scheduled": "cyan",
    "queued": "blue",
    "running": "yellow",
    "retrying": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "bright_black",
}


def console() -> Console:
    """Return a console on stdout. A pipe gets whole lines, however long."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def notes() -> Console:
    """Return a console on stderr, for what is not the result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def suggest(command: str, why: str = "") -> None:
    """Name the next useful command."""
    from rich.text import Text

    line = Text(f"Next: {command}", style="dim")
    notes().print(line.append(f"   {why}", style="dim italic") if why else line)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def shown(value: Any) -> str:
    """Return a result as a person reads it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def local(moment: str | None) -> str:
    """Return an RFC 3339 moment in local time, to the second."""
    return "" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
