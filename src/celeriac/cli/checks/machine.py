"""The surroundings: settings by unknown names, the folder, the disk, the port, who runs it.

Looks of `celeriac check` that need neither the database nor the app.
"""

import os
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from celeriac.cli.database import sqlite_file
from celeriac.cli.supervisor.home import free_port, running, url_of
from celeriac.cli.supervisor.readiness import answer
from celeriac.errors import CannotStart
from celeriac.settings import LOOPBACK, Settings, unknown_variables

Found = Iterator[tuple[str, str]]
LITTLE, TOO_LITTLE = 1 << 30, 100 << 20


def variables(settings: Settings) -> Found:
    """A variable that nobody reads is mostly a misspelt one."""
    unknown = unknown_variables()
    for name, nearest in unknown.items():
        yield "warning", f"{name} is set, and nobody reads it{_meant(nearest)}"
    if not unknown:
        number = sum(name.startswith("CELERIAC_") for name in os.environ)
        yield "fine", f"{number} CELERIAC_* variables are set, all known"


def file(settings: Settings) -> Found:
    """Likewise the keys of celeriac.toml."""
    path = Path("celeriac.toml")
    if not path.exists():
        yield "fine", "there is no celeriac.toml here; defaults and variables count"
        return
    unknown = [key for key in tomllib.loads(path.read_text("utf-8")) if key not in Settings.model_fields]
    for key in unknown:
        [nearest] = get_close_matches(key, Settings.model_fields, 1) or [""]
        yield "warning", f"{path} sets {key!r}, and nobody reads it{_meant(nearest)}"
    if not unknown:
        yield "fine", f"{path.absolute()} has no unknown keys"


def home(settings: Settings) -> Found:
    """The folder of database, token and logs."""
    home = settings.home.absolute()
    if not home.exists():
        parent = next(folder for folder in home.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield "warning", f"{home} does not exist yet; the first start makes it"
        else:
            yield "error", f"{home} does not exist and {parent} is not writable"
    elif not home.is_dir():
        yield "error", f"{home} is not a folder. Set CELERIAC_HOME to another"
    elif not os.access(home, os.W_OK | os.X_OK):
        yield "error", f"{home} is not writable. Make it so, or set CELERIAC_HOME to another"
    elif home.stat().st_mode & 0o077:
        yield "warning", f"{home} is open to other users; the next start closes it"
    else:
        yield "fine", str(home)


def token(settings: Settings) -> Found:
    """The token that opens the door to everything."""
    path = settings.token_path
    if not path.exists():
        yield "fine", "there is no token in the home folder; `celeriac dev` makes one, `celeriac token create` others"
    elif path.stat().st_mode & 0o077:
        yield "error", f"{path} can be read by others. Type: chmod 600 {shlex.quote(str(path))}"
    else:
        yield "fine", f"{path} is readable for its owner only"


def disk(settings: Settings) -> Found:
    """Room for the database, or for logs and sockets."""
    place = (sqlite_file(settings) or settings.home).absolute()
    folder = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    told = f"{free / (1 << 30):.1f} GiB free under {folder}"
    if free < TOO_LITTLE:
        yield "error", f"{told}; a full disk accepts no job. Free some, or set CELERIAC_HOME to another disk"
    elif free < LITTLE:
        yield "warning", f"{told}; that may not last"
    else:
        yield "fine", told


def port(settings: Settings) -> Found:
    """Where the web process is to listen."""
    tenant = running(settings.home)
    if tenant is not None:
        yield "fine", f"`celeriac {tenant.command}` (process {tenant.pid}) runs here, at {tenant.url}"
        return
    try:
        free_port(settings, "dev")
    except CannotStart:
        if answer(url_of(settings), "/healthz") != {"status": "alive"}:
            raise
        yield "fine", f"a Celeriac web process answers at {url_of(settings)}"
    else:
        yield "fine", f"{settings.host}:{settings.port} is free"


def hosts(settings: Settings) -> Found:
    """Who can reach it, and by which names."""
    if settings.host in LOOPBACK:
        yield "fine", "reachable from this machine only"
        return
    from celeriac.web.hosts import allowed_hosts

    yield "fine", f"reachable as {', '.join(sorted(allowed_hosts(settings)))}"  # or raises the sentence


def user(settings: Settings) -> Found:
    """Who runs it: tasks run with this user's rights."""
    if os.geteuid() == 0:
        yield "warning", "running as root; in production give it a user of its own"
    else:
        yield "fine", f"running as user {os.geteuid()}, not as root"


def _meant(nearest: str) -> str:
    return f". Did you mean {nearest}?" if nearest else ". docs/settings.md lists what there is"


LOOKS = {
    "variables": variables, "file": file, "home": home, "token": token, "disk": disk, "port": port, "hosts": hosts,
    "user": user,
}  # fmt: skip
