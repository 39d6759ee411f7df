"""Making the home ready, in a process of its own: `python -m celeriac.cli.supervisor.prepare`.

Imports the app, migrates the database (after a copy), enters the home's token, makes a login
ticket, and answers with one line of JSON on stdout. Apart from the supervisor because it loads
the app and SQLAlchemy, and the supervisor stays small and never runs anybody's code.
"""

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from celeriac.access import Role, new_secret
from celeriac.app import TaskInfo, Tasks, load_app
from celeriac.cli.supervisor.lifeline import hold_on
from celeriac.cli.supervisor.preparation import Prepared
from celeriac.errors import CeleriacError
from celeriac.ledger import Ledger, keys, migrations, open_ledger
from celeriac.settings import Settings, load

OWNER = "local"


def prepare(settings: Settings, app_only: bool = False) -> Prepared:
    """Check that the app imports and, unless `app_only`, make database and token ready."""
    try:
        example = example_of(Tasks(load_app(settings.app)).infos)
        if app_only:
            return Prepared(example=example)
        ledger = open_ledger(settings.ledger_url)
        fresh = migrations.revision(ledger) is None
        copy = migrations.copy_before_upgrade(ledger)
        migrated = migrations.upgrade(ledger, finish=True) and not fresh
        enter_token(ledger, settings.token_path, fresh)
        ticket = keys.create_ticket(ledger, OWNER, Role.ADMIN)
        return Prepared(example=example, copy=str(copy or ""), migrated=migrated, ticket=ticket)
    except CeleriacError as error:
        return Prepared(trouble=error.detail)


def example_of(tasks: list[TaskInfo]) -> str:
    """Return a submit of the app's first task, with the names of what it needs."""
    if not tasks:
        return "celeriac check"
    needed = " ".join(f"{name}=…" for name in tasks[0].schema.get("required", []))
    return f"celeriac submit {shlex.quote(tasks[0].name)} {needed}".strip()


def enter_token(ledger: Ledger, path: Path, fresh: bool) -> None:
    """Make sure that the home's token exists, is closed to others, and opens the door of the ledger.

    A `fresh` database takes over the token that is there; otherwise an unknown one was revoked.
    """
    secret = path.read_text("utf-8", "replace").strip() if path.exists() else ""
    known = bool(secret) and keys.principal_of(ledger, secret) is not None
    if not known:
        secret = secret if secret and fresh else new_secret()
        keys.remember_token(ledger, secret, "home", OWNER, Role.ADMIN)
        _write(path, secret)
    path.chmod(0o600)


def _write(path: Path, secret: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(secret + "\n")
    new.replace(path)


def main() -> None:
    """Prepare as the environment says and answer on stdout, which the app's own prints do not reach."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    hold_on()
    prepared = prepare(load(), app_only="--app-only" in sys.argv)
    print(json.dumps(asdict(prepared)), file=answer, flush=True)


if __name__ == "__main__":
    main()
