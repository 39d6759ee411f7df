"""The application: every route, its guard, and the layers in front, put together.

Called by `server.py` and by the tests. Opening the ledger is left to the lifespan, so that an
application can be built, and its documentation read, without a database.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from celeriac.app import Celeriac
from celeriac.settings import Settings
from celeriac.web import health
from celeriac.web.api import jobs, submissions, system
from celeriac.web.auth import Auth, guard
from celeriac.web.front import Front
from celeriac.web.hosts import allowed_hosts
from celeriac.web.openapi import document
from celeriac.web.pages import docs, home, login
from celeriac.web.permissions import PERMISSIONS
from celeriac.web.site import Site


class Application(FastAPI):
    """FastAPI's routing and documentation behind our own front: one layer instead of seven."""

    def __init__(self, site: Site, hosts: frozenset[str]) -> None:
        super().__init__(
            openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan(site),
            telemetry={"tracing": False, "metrics": False, "logs": False},
        )  # fmt: skip
        self.state.site = site
        self._hosts = hosts

    def build_middleware_stack(self) -> ASGIApp:
        """Return what a request passes."""
        return Front(self.router, self.router.routes, self._hosts)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self.routes)
        return self.openapi_schema


def create_app(settings: Settings, app: Celeriac, pages: Path | None = None) -> Application:
    """Build the ASGI application for an app's tasks; `pages` is a folder with the front page to show.

    Raises:
        CannotStart: when it would answer to strangers, or the folder of pages has no index.
        CeleriacError: when a route declares no permission.
    """
    site = Site(settings, app)
    auth = Auth(site)
    application = Application(site, allowed_hosts(settings))
    application.router.routes += submissions.routes(site)
    jobs.add(application)
    system.add(application)
    for route in application.router.routes:
        if isinstance(route, APIRoute):  # FastAPI looks for this stack, which is otherwise a layer before every route
            route.app = AsyncExitStackMiddleware(route.app)
    application.router.routes += health.routes(site)
    application.router.routes += docs.routes(application.openapi)
    application.router.routes += login.routes(site, auth.sessions)
    application.router.routes += home.routes(site, pages)
    guard(application.router.routes, PERMISSIONS, auth)
    return application


def _lifespan(site: Site) -> Any:
    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        await site.start()
        try:
            yield
        finally:
            await site.stop()

    return lifespan
