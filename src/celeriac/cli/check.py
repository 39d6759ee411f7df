"""`celeriac check`: what is wrong with the settings, the machine, the database or the app; starts nothing.

Each finding is an error (something would not work), a warning (worth knowing) or fine. It writes
nothing either: a database that is missing stays missing. Next: checks/.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from celeriac.cli.options import app_argument, home_option, json_option, load_settings
from celeriac.cli.output import console, print_json, suggest
from celeriac.cli.trouble import FAILED
from celeriac.errors import CeleriacError

MARKS = {"fine": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


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
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        show(findings)
        suggest("celeriac dev" if not failed else "celeriac check", "when that is repaired" if failed else "")
    ctx.exit(FAILED if failed else 0)


def look(app: str | None, home: Path | None) -> Iterator[Finding]:
    """Look at everything in turn; without valid settings there is nothing else to see.

    What is wrong with the database or the app is told once, though several looks need it.
    """
    try:
        settings = load_settings(home=home, app=app)
    except CeleriacError as error:
        yield Finding("error", "settings", error.detail)
        return
    yield Finding("fine", "settings", f"web on {settings.host}:{settings.port}")
    from celeriac.cli.checks import LOOKS

    told = set()
    for about, looks in LOOKS.items():
        try:
            yield from (Finding(level, about, message) for level, message in looks(settings))
        except CeleriacError as error:
            if error.detail not in told:
                yield Finding("error", about, error.detail)
            told.add(error.detail)


def show(findings: list[Finding]) -> None:
    """Print the findings as lines, errors last, where the eye is."""
    from rich.text import Text

    out = console()
    width = max(len(finding.about) for finding in findings) + 2
    for finding in sorted(findings, key=lambda finding: list(MARKS).index(finding.level)):
        mark, style = MARKS[finding.level]
        line = Text().append(f"{mark} ", style=style).append(finding.about.ljust(width), style="bold")
        out.print(line.append(finding.message))
