"""`celeriac token`: make, list and revoke tokens, print a one-time login link, end sessions.

These commands work on the ledger directly, so they need its database, not a token. A token's secret
is shown once, on stdout: alone, or as JSON with the rest of the token.
"""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac import clock
from celeriac.access import Role, digest
from celeriac.cli.database import open_existing
from celeriac.cli.options import home_option, json_option, load_settings
from celeriac.cli.output import Column, local, notes, print_json, suggest, table

if TYPE_CHECKING:
    from celeriac.ledger import Ledger
    from celeriac.ledger.keys import Token

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
YEARS_MOST = 100
TICKET_SECONDS = 600


class Length(click.ParamType[int]):
    """A length of time such as 30d, 12h or 90m, in microseconds."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])", str(value))
        seconds = float(found[1]) * UNITS[found[2]] if found else 0
        if not 0 < seconds <= YEARS_MOST * 365.25 * UNITS["d"]:
            self.fail(f"{value!r} is not a length of time such as 30d, 12h or 90m, of at most {YEARS_MOST} years")
        return int(seconds * 1_000_000)


role_option = click.option(
    "--role", type=click.Choice([role.value for role in Role]), default=Role.SUBMITTER.value, show_default=True,
    help="What it may do.",
)  # fmt: skip


@click.group("token")
def command() -> None:
    """Make, list and revoke tokens; print a login link."""


@command.command("create")
@click.argument("name")
@role_option
@click.option("--owner", help="Whose jobs it submits; the name if not given.")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="PATTERN",
    help="It may submit and retry only these tasks, as `mail.*`; may be given several times.",
)
@click.option("--expires", type=Length(), help="Ends after so long, as `30d` or `12h`; never if not given.")
@home_option
@json_option
def create(
    name: str, role: str, owner: str | None, tasks: tuple[str, ...], expires: int | None, home: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a token called NAME and print its secret, which is not shown again."""
    from celeriac.ledger import keys

    ledger, expires_at = _ledger(home), None if expires is None else clock.micros() + expires
    secret = keys.create_token(ledger, name, owner or name, Role(role), expires_at, tasks)
    if as_json:
        print_json({**_record(keys.token(ledger, digest(secret))), "secret": secret})
        return
    click.echo(secret)
    narrowed = f", with the tasks {', '.join(tasks)}" if tasks else ""
    who = f"{'an' if role[0] in 'ao' else 'a'} {role}"
    notes().print(f"This secret is shown only now. It may do what {who} may{narrowed}.", style="dim")
    suggest(f"celeriac token revoke {shlex.quote(name)}", "ends it")


@command.command("list")
@home_option
@json_option
def list_(home: Path | None, as_json: bool) -> None:
    """List the newest 500 tokens, revoked ones included."""
    from celeriac.ledger import keys

    tokens = keys.all_tokens(_ledger(home))
    if as_json:
        for token in tokens:
            print_json(_record(token))
        return
    _show(tokens)
    suggest("celeriac token create NAME")


@command.command("revoke")
@click.argument("tokens", nargs=-1)
@click.option("--all", "several", is_flag=True, help="Every token of a name, if several have it.")
@click.option("--sessions", metavar="OWNER", help="End all logins of this owner in the browser.")
@home_option
def revoke(tokens: tuple[str, ...], several: bool, sessions: str | None, home: Path | None) -> None:
    """Revoke TOKENS by id or name; they stop working within a second.

    What was accepted with a token stays accepted: its jobs run, and operations it began go on.
    """
    from celeriac.ledger import keys

    if not tokens and sessions is None:
        raise click.UsageError("Name a token, or an owner with --sessions.")
    ledger = _ledger(home)
    if sessions is not None:
        count = keys.end_sessions(ledger, sessions)
        click.echo(f"Ended {count} session{'' if count == 1 else 's'} of {sessions}.")
    for token in tokens:
        ids = [known.id for known in keys.all_tokens(ledger) if known.name == token and _in_force(known)]
        if len(ids) > 1 and not several:
            raise click.UsageError(
                f"{len(ids)} tokens are called {token!r}. Name one by its id ({', '.join(ids)}), or say --all."
            )
        count = keys.revoke_token(ledger, token)
        if not count:
            raise click.ClickException(f"There is no token {token!r} in force. See `celeriac token list`.")
        click.echo(f"Revoked {token}." if count == 1 else f"Revoked {count} tokens called {token}.")
    suggest("celeriac token list")


@command.command("login")
@click.option("--owner", default="local", show_default=True, help="Who is logged in.")
@home_option
@json_option
def login(owner: str, home: Path | None, as_json: bool) -> None:
    """Print a link that logs a browser in, once, as an admin."""
    from celeriac.cli.supervisor.home import running, url_of
    from celeriac.ledger import keys

    settings = load_settings(home=home)
    tenant = running(settings.home)
    expires_at = clock.micros() + TICKET_SECONDS * 1_000_000
    ticket = keys.create_ticket(open_existing(settings), owner, Role.ADMIN, TICKET_SECONDS)
    link = f"{tenant.url if tenant else url_of(settings)}/login?ticket={ticket}"
    if as_json:
        print_json({"url": link, "owner": owner, "expires_at": clock.rfc3339(expires_at)})
        return
    click.echo(link)
    if tenant is None:
        notes().print("No `celeriac dev` runs here; the link is for `celeriac web` with these settings.", style="dim")
    notes().print("It works once, within ten minutes.", style="dim")


def _ledger(home: Path | None) -> "Ledger":
    return open_existing(load_settings(home=home))


def _record(token: "Token") -> dict[str, object]:
    return {
        "id": token.id, "name": token.name, "owner": token.owner, "role": token.role.value, "tasks": token.tasks,
        "created_at": clock.rfc3339(token.created_at), "expires_at": clock.rfc3339(token.expires_at),
        "revoked_at": clock.rfc3339(token.revoked_at),
    }  # fmt: skip


def _show(tokens: "list[Token]") -> None:
    styles = ["" if _in_force(token) else "dim" for token in tokens]
    table([
        Column("name", [token.name for token in tokens], least=8, styles=styles),
        Column("owner", [token.owner for token in tokens], 3, least=8, styles=styles),
        Column("role", [token.role.value for token in tokens], styles=styles),
        Column("tasks", [", ".join(token.tasks) or "all" for token in tokens], 2, least=8, styles=styles),
        Column("created", [local(clock.rfc3339(token.created_at)) for token in tokens], 4, styles=styles),
        Column("in force", [_state(token) for token in tokens], 1, styles=styles),
        Column("id", [token.id for token in tokens], styles=styles),
    ])  # fmt: skip


def _in_force(token: "Token") -> bool:
    return _state(token) not in ("revoked", "expired")


def _state(token: "Token") -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is None:
        return "yes"
    return "expired" if token.expires_at <= clock.micros() else f"until {local(clock.rfc3339(token.expires_at))}"
