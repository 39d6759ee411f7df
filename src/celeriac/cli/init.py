"""`celeriac init`: a starting point in an empty folder: an app of two tasks, its settings, what git leaves out.

Writes only what is not there. The files are in `starter/`.
"""

import shlex
from pathlib import Path

import click

from celeriac.cli.output import suggest

STARTER = Path(__file__).parent / "starter"
FILES = {"tasks.py": "two tasks to begin with", "celeriac.toml": "settings"}
IGNORED = (".celeriac/", "__pycache__/")


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("."))
def command(folder: Path) -> None:
    """Write a starting point into FOLDER (this one if not given). What is there stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, what in FILES.items():
        _tell(name, what, _write(folder / name, (STARTER / name).read_text("utf-8")))
    _tell(".gitignore", "leaves out what Celeriac writes", _ignore(folder / ".gitignore"))
    here = "" if folder == Path(".") else f"cd {shlex.quote(str(folder))} && "
    suggest(f"{here}celeriac dev tasks:app")


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _ignore(path: Path) -> bool:
    before = path.read_text("utf-8") if path.exists() else ""
    missing = [line for line in IGNORED if line not in before.splitlines()]
    if missing:
        gap = "" if not before or before.endswith("\n") else "\n"
        path.write_text(before + gap + "".join(f"{line}\n" for line in missing), "utf-8")
    return bool(missing)


def _tell(name: str, what: str, written: bool) -> None:
    click.echo(f"{name.ljust(14)} {what if written else 'was there; left as it is'}")
