"""The options that several commands share, and what is made of them.

`settings_options` gives a command host, port and home on top of the variables; `server_options`
gives a client's command the server it talks to. Both win over the environment.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from celeriac.cli.arguments import moment
from celeriac.states import State

if TYPE_CHECKING:
    from celeriac.client import Client
    from celeriac.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


class Words(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "name,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in value.split(",") if word.strip())
        return (str(value),) if value.isspace() else words  # a queue may be called " "


class Address(click.ParamType[str]):
    """The address of a server."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        return (
            str(value) if good else self.fail(f"{value!r} is not an address such as http://127.0.0.1:8787", param, ctx)
        )


class Secret(click.ParamType[str]):
    """A token as it can stand in a header."""

    name = "token"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not (value.isascii() and value.isprintable()):
            self.fail("a token holds only plain letters, digits and signs", param, ctx)
        return str(value)


WORDS, ADDRESS, SECRET = Words(), Address(), Secret()

PATIENCE_SECONDS = 4.0  # a person waits at the terminal for what cannot be had

FILTERS: dict[str, tuple[str, click.ParamType[Any]]] = {
    "state": (f"One or more of {', '.join(State)}.", WORDS),
    "task": ("Of these tasks.", WORDS),
    "queue": ("In these queues.", WORDS),
    "owner": ("Submitted by these owners.", WORDS),
    "tag": ("With one of these tags.", WORDS),
    "batch": ("Of these batches.", WORDS),
    "q": ("Whose id, task, tag or error type begins with this.", click.STRING),
    "since": ("Submitted since then; 2h means two hours ago.", click.STRING),
    "until": ("Submitted before then.", click.STRING),
}

app_argument = click.argument("app", required=False)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script to read.")


def home_option(command: Function) -> Function:
    """Add --home."""
    folder = click.Path(path_type=Path, file_okay=False)
    return click.option("--home", type=folder, help="Folder of database, token and logs (CELERIAC_HOME).")(command)


def settings_options(command: Function) -> Function:
    """Add --host, --port and --home."""
    number = click.IntRange(0, 65535)
    port = click.option("--port", type=number, help="Port of the web process, 0 for any free one (CELERIAC_PORT).")
    host = click.option("--host", help="Address the web process listens on (CELERIAC_HOST).")
    return host(port(home_option(command)))


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --url and --token, which the command gets as one `server`.

    Below a group that takes them too, they may stand before or after the command's name.
    """

    @wraps(command)
    def with_server(*args: Any, url: str | None, token: str | None, **rest: Any) -> Any:
        above = click.get_current_context().find_object(Server) or Server(None, None)
        return command(*args, server=Server(url or above.url, token or above.token), **rest)

    token = click.option("--token", type=SECRET, help="Token (CELERIAC_TOKEN); else the home folder's.")
    url = click.option("--url", type=ADDRESS, help="Server (CELERIAC_URL); else the one of the home folder.")
    return url(token(with_server))


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that narrow a list of jobs; the command gets those given as one `filter`, as the API takes it."""

    @wraps(command)
    def with_filter(*args: Any, **rest: Any) -> Any:
        given = {name: rest.pop(name) for name in FILTERS}
        return command(*args, filter=narrowed(given), **rest)

    for name, (help, kind) in reversed(FILTERS.items()):
        short = ("-q",) if name == "q" else ()
        option = click.option(*short, f"--{name}", type=kind, metavar=None if kind is WORDS else "TEXT", help=help)
        with_filter = option(with_filter)
    return with_filter


def narrowed(filters: dict[str, Any]) -> dict[str, Any]:
    """Return the filters that were given, as the API takes them: names with commas, times as RFC 3339."""

    def taken(name: str, value: Any) -> Any:
        if name in ("since", "until"):
            return moment(value, -1)
        return ",".join(value) if isinstance(value, tuple) else value

    return {name: taken(name, value) for name, value in filters.items() if value}


@dataclass(frozen=True, slots=True)
class Server:
    """The server that was asked for; without a URL the one that runs on the home folder."""

    url: str | None
    token: str | None

    def client(self) -> "Client":
        """Return a client of it, which is closed when the command has ended."""
        from celeriac.cli.supervisor.home import running
        from celeriac.client import Client, Unreachable

        def opened(url: str | None) -> Client:
            return command.with_resource(Client(url, token, PATIENCE_SECONDS))

        url = self.url or _variable("CELERIAC_URL", ADDRESS)
        token = self.token or _variable("CELERIAC_TOKEN", SECRET)
        command = click.get_current_context()
        if url is not None:
            return opened(url)
        settings = load_settings()
        tenant = running(settings.home)
        if tenant is None and token is None and not settings.token_path.exists():
            raise Unreachable(f"Nothing runs on the folder {settings.home.absolute()}, and no server was named.")
        return opened(tenant.url if tenant else None)


def _variable(name: str, kind: click.ParamType[str]) -> str | None:
    """Return a variable of the environment, checked as the option it stands for."""
    text = os.environ.get(name)
    if not text:
        return None
    option = click.Option([f"--{name.removeprefix('CELERIAC_').lower()}"], envvar=name)
    return kind.convert(text, option, click.get_current_context())


def load_settings(**flags: Any) -> "Settings":
    """Return the settings with a command's flags on top."""
    from celeriac.settings import load

    return load(**flags)
