"""`celeriac backup`: a copy of the ledger as of one moment, while everything runs, and looked through before it counts.

SQLite is copied by its own backup, Postgres by pg_dump. The copy holds everything, secrets in arguments
included, so it is closed to others.
"""

import os
import shlex
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.database import open_existing, sqlite_file
from celeriac.cli.options import home_option, json_option, load_settings
from celeriac.cli.output import count, notes, print_json, suggest
from celeriac.errors import CannotStart

if TYPE_CHECKING:
    from celeriac.settings import Settings


@click.command("backup")
@click.argument("path", type=click.Path(), required=False)
@home_option
@json_option
def command(path: str | None, home: Path | None, as_json: bool) -> None:
    """Copy the ledger to PATH, a file or a folder, while everything runs; check the copy, say how to restore it.

    Without PATH it is a new file in the working directory. An existing file is never overwritten.
    """
    settings = load_settings(home=home)
    file = sqlite_file(settings)
    place = _place(path, ".db" if file else ".dump")
    part = place.with_name(f".{place.name}.part")
    try:
        held = _copy(settings, part) if file else _dump(settings, part)
        _settle(part, place)
    finally:
        for left in (part, *place.parent.glob(f"{part.name}-*"), part.with_name(f"{part.name}.lock")):
            left.unlink(missing_ok=True)
    size = place.stat().st_size
    if as_json:
        print_json({"path": str(place), "bytes": size, **held})
        return
    numbers = [count(number, name.removesuffix("s")) for name, number in held.items() if isinstance(number, int)]
    click.echo(f"{place} holds {', '.join(numbers) or 'the database'}; {size / (1 << 20):.1f} MiB, read through.")
    notes().print(f"To restore, stop everything and type: {_restore(place, file)}")
    suggest("celeriac check")


def _restore(copy: Path, file: Path | None) -> str:
    """Return what a shell is told to put a copy back."""
    if file is None:
        return shlex.join(["pg_restore", "--clean", "--if-exists", "-d", "DATABASE_URL", str(copy)])
    return f"{shlex.join(['rm', '-f', f'{file}-wal', f'{file}-shm'])} && {shlex.join(['cp', str(copy), str(file)])}"


def _place(path: str | None, suffix: str) -> Path:
    """Return the file to write. Raises CannotStart when it exists, or its folder does not."""
    name = f"celeriac-{datetime.now():%Y-%m-%dT%H-%M-%S}{suffix}"
    given = Path(path or ".")
    if path and path.endswith(os.sep) and not given.is_dir():
        raise CannotStart(f"There is no folder {given.absolute()}. Make it first.")
    place = (given / name if given.is_dir() else given).absolute()
    if place.exists():
        raise CannotStart(f"{place} exists already and is not overwritten. Name another file, or a folder.")
    if not place.parent.is_dir():
        raise CannotStart(f"There is no folder {place.parent}. Make it first.")
    return place


def _copy(settings: "Settings", part: Path) -> dict[str, Any]:
    from celeriac.ledger import condition

    ledger = open_existing(settings)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    ledger.copy(part)
    return dict(condition.examine(part))


def _dump(settings: "Settings", part: Path) -> dict[str, Any]:
    tools = [shutil.which(name) for name in ("pg_dump", "pg_restore")]
    if None in tools:
        raise CannotStart(
            "A Postgres ledger is copied with pg_dump, which is not installed here. Install your system's Postgres "
            "client (postgresql-client), of the server's version or newer, or back the server up its own way."
        )
    open_existing(settings)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    # The password goes by the environment: arguments can be read by everybody on this machine.
    where = conninfo_to_dict(settings.announcements_url)
    environment = {**os.environ, "PGPASSWORD": str(where.pop("password", None) or os.environ.get("PGPASSWORD", ""))}
    _run("pg_dump", ["pg_dump", "-Fc", "-f", str(part), "-d", make_conninfo("", **where)], environment)
    listed = _run("pg_restore", ["pg_restore", "--list", str(part)], environment)
    if "TABLE DATA public jobs " not in listed:
        raise CannotStart("What pg_dump wrote holds no jobs. Is CELERIAC_DATABASE_URL the right database?")
    return {}


def _run(tool: str, argv: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise CannotStart(f"{tool} failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def _settle(part: Path, path: Path) -> None:
    """Give the copy its name, unless somebody took it meanwhile; on disk before it is told."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(part, path)
    except FileExistsError:
        raise CannotStart(f"{path} appeared meanwhile and is not overwritten. Name another file.") from None
    except OSError:  # a file system without hard links
        part.rename(path)
