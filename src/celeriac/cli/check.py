"""`celeriac check`: what is wrong with the settings, the home, the database or the app; starts nothing.

Each finding is an error (something would not work), a warning (worth knowing) or fine. It writes
nothing either: a database that is missing stays missing.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from celeriac.cli.database import open_existing, sqlite_file
from celeriac.cli.options import app_argument, home_option, json_option, load_settings
from celeriac.cli.output import console, print_json, suggest
from celeriac.cli.trouble import FAILED
from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from celeriac.settings import Settings

FINE, WARNING, ERROR = "fine", "warning", "error"
MARKS = {FINE: ("✓", "green"), WARNING: ("!", "yellow"), ERROR: ("✗", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: str
    about: str
    message: str


@click.command("check")
@app_argument
@home_option
@json_option
@click.pass_context
def command(ctx: click.Context, app: str | None, home: Path | None, as_json: bool) -> None:
    """Say what is wrong with the settings, the database or APP; start and change nothing.

    Exits with 1 when there is an error; warnings alone are fine.
    """
    findings = list(look(app, home))
    failed = any(finding.level == ERROR for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        show(findings)
        suggest("celeriac dev" if not failed else "celeriac check", "when that is repaired" if failed else "")
    ctx.exit(FAILED if failed else 0)


def look(app: str | None, home: Path | None) -> Iterator[Finding]:
    """Look at everything in turn; without valid settings there is nothing else to see."""
    try:
        settings = load_settings(home=home, app=app)
    except CeleriacError as error:
        yield Finding(ERROR, "settings", error.detail)
        return
    yield Finding(FINE, "settings", f"web on {settings.host}:{settings.port}")
    for about, looks in LOOKS.items():
        try:
            yield from (Finding(level, about, message) for level, message in looks(settings))
        except CeleriacError as error:
            yield Finding(ERROR, about, error.detail)


def _home(settings: "Settings") -> Iterator[tuple[str, str]]:
    home = settings.home.absolute()
    if not home.exists():
        parent = next(folder for folder in home.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield WARNING, f"{home} does not exist yet; the first start makes it"
        else:
            yield ERROR, f"{home} does not exist and {parent} is not writable"
    elif not home.is_dir():
        yield ERROR, f"{home} is not a folder. Set CELERIAC_HOME to another"
    elif not os.access(home, os.W_OK | os.X_OK):
        yield ERROR, f"{home} is not writable. Make it so, or set CELERIAC_HOME to another"
    elif home.stat().st_mode & 0o077:
        yield WARNING, f"{home} is open to other users; the next start closes it"
    else:
        yield FINE, str(home)


def _database(settings: "Settings") -> Iterator[tuple[str, str]]:
    from celeriac.ledger import migrations

    file = sqlite_file(settings)
    if file is not None and not file.exists():
        yield WARNING, f"{file} does not exist yet; `celeriac dev` and `celeriac migrate` make it"
        return
    open_existing(settings)
    yield FINE, f"{file or 'the server'} is at this version ({migrations.head()})"


def _app(settings: "Settings") -> Iterator[tuple[str, str]]:
    from celeriac.app import Tasks, load_app

    if not settings.app:
        yield WARNING, "no app was named; say `celeriac check mymodule:app` or set CELERIAC_APP"
        return
    names = Tasks(load_app(settings.app)).names
    if names:
        yield FINE, f"{settings.app} has {len(names)} tasks: {', '.join(names)}"
    else:
        yield WARNING, f"{settings.app} has no tasks; give a function @app.task"


Look: TypeAlias = Callable[["Settings"], Iterator[tuple[str, str]]]
LOOKS: dict[str, Look] = {"home": _home, "database": _database, "app": _app}


def show(findings: list[Finding]) -> None:
    """Print the findings as lines, errors last, where the eye is."""
    from rich.text import Text

    out = console()
    for finding in sorted(findings, key=lambda finding: list(MARKS).index(finding.level)):
        mark, style = MARKS[finding.level]
        line = Text().append(f"{mark} ", style=style).append(finding.about.ljust(10), style="bold")
        out.print(line.append(finding.message))
