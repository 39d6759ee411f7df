"""How the commands look: two consoles, the colours of states, and the next useful command.

Results go to stdout, everything else to stderr, so that a pipe carries only results. Without a
terminal, and with NO_COLOR, nothing but text is written: no colours, and nothing dim or bold either.
People's text is written as it is: `[red]` or `:bug:` in it mean nothing here.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

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
    return _console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def notes() -> Console:
    """Return a console on stderr, for what is not the result."""
    return _console(stderr=True, soft_wrap=True)


def _console(**options: Any) -> Console:
    return Console(markup=False, emoji=False, highlight=False, color_system=_colors(), **options)


def _colors() -> Literal["auto"] | None:
    return None if os.environ.get("NO_COLOR") else "auto"  # rich itself would still write dim and bold


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. On a narrow terminal those with the highest `drop` go first; 0 always stays.

    `least` is how far it may be cut before others go; None never cuts it.
    """

    title: str
    cells: Sequence[str]
    drop: int = 0
    least: int | None = None
    styles: Sequence[str] = ()

    @property
    def width(self) -> int:
        """The cells its widest line takes."""
        return max(cell_len(text) for text in (self.title, *self.cells))


def table(columns: Sequence[Column]) -> None:
    """Print a table one line a row, as wide as the terminal and no wider."""
    out = console()
    kept = _fitting(list(columns), out.width)
    widths = [column.width for column in kept]
    spare = sum(widths) + 2 * (len(kept) - 1) - out.width
    for place, column in enumerate(kept):
        if spare > 0 and column.least is not None:
            cut = min(spare, max(widths[place] - column.least, 0))
            widths[place], spare = widths[place] - cut, spare - cut
    out.print(_line([column.title for column in kept], widths, ["dim"] * len(kept)), soft_wrap=True)
    for row in range(len(kept[0].cells)):
        styles = [column.styles[row] if column.styles else "" for column in kept]
        out.print(_line([column.cells[row] for column in kept], widths, styles), soft_wrap=True)


def _fitting(columns: list[Column], width: int) -> list[Column]:
    def least(column: Column) -> int:
        return column.width if column.least is None else min(column.width, column.least)

    while sum(map(least, columns)) + 2 * (len(columns) - 1) > width:
        first = max(columns, key=lambda column: column.drop)
        if first.drop == 0:
            break
        columns.remove(first)
    return columns


def _line(cells: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> Text:
    line = Text()
    for text, width, style in zip(cells, widths, styles, strict=True):
        short = text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"
        line.append(set_cell_size(short, width), style=style).append("  ")
    line.rstrip()
    return line


def suggest(command: str, why: str = "") -> None:
    """Name the next useful command."""
    line = Text(f"Next: {command}", style="dim")
    notes().print(line.append(f"   {why}", style="dim italic") if why else line)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(json_line(value))


def json_line(value: Any) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def shown(value: Any) -> str:
    """Return a result as a person reads it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def local(moment: str | None) -> str:
    """Return an RFC 3339 moment in local time, to the second."""
    return "" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
