"""The application: every route, its guard, and the layers in front, put together.

Called by `server.py` and by the tests. Opening the ledger is left to the lifespan, so that an
application can be built, and its documentation read, without a database.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp

from celeriac.access import Permission
from celeriac.app import Celeriac, Tasks
from celeriac.errors import CeleriacError
from celeriac.settings import Settings
from celeriac.web import health, metrics
from celeriac.web.api import batches, jobs, operations, queues, submissions, system, tokens, typed
from celeriac.web.api.queries import no_repeats
from celeriac.web.auth import Auth, guard
from celeriac.web.endpoints import typed as typed_document
from celeriac.web.front import Front
from celeriac.web.hosts import allowed_hosts
from celeriac.web.openapi import document
from celeriac.web.pages import docs, home, login
from celeriac.web.permissions import OPEN_METRICS, PERMISSIONS
from celeriac.web.site import Site


class Application(FastAPI):
    """FastAPI's routing and documentation behind our own front: one layer instead of seven."""

    def __init__(self, site: Site, hosts: frozenset[str]) -> None:
        super().__init__(
            openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_lifespan(site),
            dependencies=[Depends(no_repeats)], telemetry={"tracing": False, "metrics": False, "logs": False},
        )  # fmt: skip
        self.state.site = site
        self._hosts = hosts

    def build_middleware_stack(self) -> ASGIApp:
        """Return what a request passes."""
        return Front(self.router, self.router.routes, self._hosts, self.state.site.metrics)

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
    for submitting in (submissions, batches, typed):
        application.router.routes += submitting.routes(site)
    for part in (batches, jobs, operations, queues, system, tokens):
        part.add(application)
    for route in application.router.routes:
        if isinstance(route, APIRoute):  # FastAPI looks for this stack, which is otherwise a layer before every route
            route.app = AsyncExitStackMiddleware(route.app)
    application.router.routes += health.routes(site)
    application.router.routes += metrics.routes(site)
    application.router.routes += docs.routes(partial(_document, application, auth), auth, home.token_file(settings))
    application.router.routes += login.routes(site, auth)
    application.router.routes += home.routes(site, pages, auth)
    guard(application.router.routes, PERMISSIONS | (OPEN_METRICS if settings.metrics else {}), auth)
    return application


async def _document(application: Application, auth: Auth, request: Request) -> dict[str, Any]:
    """Return the OpenAPI document as the caller may see it."""
    try:
        principal = await auth.principal(request.scope)
    except CeleriacError:  # a stranger, or nobody knows just now
        return application.openapi()
    if not principal.may(Permission.SYSTEM_READ):
        return application.openapi()
    tasks: Tasks = application.state.site.tasks
    return typed_document(application.openapi(), [info for info in tasks.infos if principal.may_run(info.name)])


def _lifespan(site: Site) -> Any:
    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        await site.start()
        try:
            yield
        finally:
            await site.stop()

    return lifespan
