"""What the supervisor shows: each process's lines behind its coloured name, and its own few sentences.

Every line also goes to `$CELERIAC_HOME/logs/<name>.log`, which begins anew when it has grown past
5 MB at a start. A terminal that is gone stops nothing.
"""

import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from celeriac.cli.output import notes

ROTATE_BYTES = 5 * 1024 * 1024
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95)  # ANSI: cyan, yellow, magenta, green …
# What a job logs may hold anything: no line may move the cursor or recolour the terminal.
_HARMLESS = {code: "·" for code in (*range(32), *range(127, 160)) if code != 9}


class Screen:
    """The terminal and the log files, shared by the threads that read the processes' output."""

    def __init__(self, logs: Path, names: list[str]) -> None:
        logs.mkdir(mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._files = {name: _open(logs / f"{name}.log") for name in names}
        console = notes()
        self._coloured = console.is_terminal and not console.no_color
        self._width = max(map(len, [*names, "celeriac"]))
        self._prefixes = {
            name: self._paint(name.rjust(self._width) + " │ ", _COLOURS[place % len(_COLOURS)])
            for place, name in enumerate(names)
        }

    def line(self, name: str, text: str) -> None:
        """Show and keep one line of a process."""
        with self._lock:
            _write(sys.stderr, self._prefixes[name] + text.translate(_HARMLESS))
            _write(self._files[name], text)

    def say(self, text: str) -> None:
        """Say something of our own."""
        with self._lock:
            _write(sys.stderr, self._paint("celeriac".rjust(self._width), 1) + " │ " + text)

    def block(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Print a block of names and values on stdout, with air around it."""
        width = max(len(name) for name, _ in rows) + 3
        lines = [f"  {self._paint(name.ljust(width), 2)}{value}" for name, value in rows]
        with self._lock:
            _write(sys.stdout, "\n".join(["", f"  {self._paint(title, 1)}", "", *lines, ""]))

    def close(self) -> None:
        """Close the log files."""
        with self._lock:
            for file in self._files.values():
                file.close()

    def _paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text


def _open(path: Path) -> TextIO:
    with suppress(OSError):
        if path.stat().st_size > ROTATE_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    return path.open("a", encoding="utf-8", errors="replace", buffering=1)


def _write(file: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):
        file.write(text + "\n")
        file.flush()
