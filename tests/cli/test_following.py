"""Bars on a terminal: people's text is shown as it is, whatever it looks like to rich."""

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from celeriac.cli import following
from celeriac.cli.following import bars, say, update
from cli.terminal import Terminal, run

TASK, NOTE, RESULT = "copy [dim]", "file [/tmp/x] [done] :bug:", "[red] :bug:"
APP = f"""
import time
from pathlib import Path

from celeriac import Celeriac, current

app = Celeriac("mine")


@app.task(name="{TASK}")
def copy(until):
    while not Path(until).exists():
        current.progress(1, 2, "{NOTE}")
        time.sleep(0.05)
    return "{RESULT}"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on which an app runs whose names and notes look like markup."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "mine.py").write_text(APP)
    running = Terminal(folder, "dev", "mine:app", "--port", "0", "--no-reload")
    try:
        running.shows("is ready")
        yield folder
    finally:
        running.close()


def watched(terminal, folder: Path, *words: str, until: Path) -> Terminal:
    """The command, which has ended: it was shown the note before its jobs could end."""
    watching = terminal(*words, folder=folder, screen=True, TERM="xterm", COLUMNS="160")
    watching.shows(r"1/2 .* file \[")
    until.touch()
    assert watching.end() == 0
    return watching


def test_a_bar_shows_names_and_notes_as_they_are(terminal, served: Path):
    go = served / "one"
    watching = watched(terminal, served, "submit", TASK, f"until={go}", until=go)

    assert f" {TASK} running " in watching.err
    assert f" {NOTE}" in watching.err
    assert watching.out == f"{RESULT}\n"


def test_bars_of_many_jobs_show_names_and_notes_as_they_are(terminal, served: Path):
    go = served / "many"
    ids = [run(served, "submit", TASK, f"until={go}", "--no-wait").stdout.strip() for _ in range(2)]
    watching = watched(terminal, served, "watch", *ids, until=go)

    assert f" {TASK} running " in watching.err
    assert f" {NOTE}" in watching.err
    assert sorted(watching.out.splitlines()) == [f"{id}  {TASK}  succeeded" for id in sorted(ids)]


def test_a_state_has_its_colour_and_a_name_has_none(monkeypatch: pytest.MonkeyPatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "", "TERM": "xterm", "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)
    with bars() as bar:
        update(bar, bar.add_task("[red]lcs", total=None, note=""), {"task": "[red]lcs", "state": "running"})

    assert "[red]lcs\x1b[33m running\x1b[0m" in capsys.readouterr().err


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_result_stands_on_a_line_of_its_own_above_the_bars(on_terminal: bool, monkeypatch, capsys):
    screen = StringIO()
    out = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(following, "notes", lambda: out)
    monkeypatch.setattr("sys.stdout.isatty", lambda: on_terminal)
    with bars() as bar:
        bar.add_task("all jobs", total=2, note="")
        bar.refresh()
        say(bar, "one [red]  succeeded")
        bar.refresh()

    drawn = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]+", screen.getvalue())]
    assert ("one [red]  succeeded" in drawn) is on_terminal
    assert capsys.readouterr().out == ("" if on_terminal else "one [red]  succeeded\n")
