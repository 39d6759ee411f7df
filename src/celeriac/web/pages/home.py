"""The front page: the one a demo brings along, or a small one that says where to go.

A folder of pages has an `index.html`, shown at `/`; its other files are at `/demo/<name>`. The
page needs no login to load, since it holds no secret: what it shows it asks the API for.
"""

import json
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from celeriac.errors import CannotStart
from celeriac.settings import Settings
from celeriac.web.auth import Auth
from celeriac.web.hosts import is_loopback
from celeriac.web.pages import STATIC, page
from celeriac.web.pages.samples import sample
from celeriac.web.site import Site

# Files change with the program, not between requests: browsers ask again and mostly hear "not modified".
_ASK_AGAIN = {"Cache-Control": "no-cache"}


def routes(site: Site, pages: Path | None, auth: Auth) -> list[BaseRoute]:
    """Return the routes of the front page and of the files that pages need."""
    static: list[BaseRoute] = [Mount("/static", Files(directory=STATIC))]
    if pages is None:
        return [Route("/", _small(site, auth), methods=["GET"]), *static]
    index = pages / "index.html"
    if not index.is_file():
        raise CannotStart(f"The folder of pages {pages} has no index.html.")

    async def home(request: Request) -> Response:
        return FileResponse(index, headers=_ASK_AGAIN)

    return [Route("/", home, methods=["GET"]), Mount("/demo", Files(directory=pages)), *static]


class Files(StaticFiles):
    """A folder of files that browsers may keep as long as they ask whether it is still the newest."""

    def file_response(self, *args: object, **options: object) -> Response:
        """Answer with a file."""
        response = super().file_response(*args, **options)  # type: ignore[arg-type]
        response.headers.update(_ASK_AGAIN)
        return response


def token_file(settings: Settings) -> str:
    """Return where `dev` and `demo` keep their token: where really, if only this machine can read it."""
    private = is_loopback(settings.host) and not settings.allowed_hosts
    return shlex.quote(str(settings.token_path.absolute())) if private else ".celeriac/token"


def _small(site: Site, auth: Auth) -> Callable[[Request], Awaitable[Response]]:
    async def home(request: Request) -> Response:
        info = next(iter(site.tasks.infos), None)
        body = {"task": info.name, "args": sample(info.schema)} if info else {"task": "my-task", "args": {}}
        return page(
            "home.html", address=str(request.base_url).rstrip("/"), body=shlex.quote(json.dumps(body)),
            token=token_file(site.settings), logged_in=await auth.is_open(request.scope),
        )  # fmt: skip

    return home
