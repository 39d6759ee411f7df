"""The options that several commands share, and what is made of them.

`settings_options` gives a command host, port and home on top of the variables; `server_options`
gives a client's command the server it talks to. Both win over the environment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

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
        return tuple(word.strip() for word in value.split(",") if word.strip())


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
    """Add --url and --token, which the command gets as one `server`."""

    @wraps(command)
    def with_server(*args: Any, url: str | None, token: str | None, **rest: Any) -> Any:
        return command(*args, server=Server(url, token), **rest)

    token = click.option(
        "--token", type=SECRET, envvar="CELERIAC_TOKEN", help="Token (CELERIAC_TOKEN); else the home folder's."
    )
    url = click.option(
        "--url", type=ADDRESS, envvar="CELERIAC_URL", help="Server (CELERIAC_URL); else the one of the home folder."
    )
    return url(token(with_server))


@dataclass(frozen=True, slots=True)
class Server:
    """The server that was asked for; without a URL the one that runs on the home folder."""

    url: str | None
    token: str | None

    def client(self) -> "Client":
        """Return a client of it."""
        from celeriac.cli.supervisor.home import running
        from celeriac.client import Client, Unreachable

        if self.url is not None:
            return Client(self.url, self.token)
        settings = load_settings()
        tenant = running(settings.home)
        if tenant is None and self.token is None and not settings.token_path.exists():
            raise Unreachable(f"Nothing runs on the folder {settings.home.absolute()}, and no server was named.")
        return Client(tenant.url if tenant else None, self.token)


def load_settings(**flags: Any) -> "Settings":
    """Return the settings with a command's flags on top."""
    from celeriac.settings import load

    return load(**flags)
