"""The front: the outermost layer, which every request passes.

Refuses hosts that are not served here, hands the rest to the router, adds the security
headers to every answer, makes a problem of every error, and counts. Pure ASGI, since each
layer is paid by each request. Next: the route's guard in `auth.py`.
"""

import time
from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celeriac.errors import HostNotAllowed
from celeriac.web.auth import header
from celeriac.web.hosts import name_of
from celeriac.web.metrics import Metrics
from celeriac.web.problems import problem

API = "/api/"
# Asked by whoever supervises the process, under whatever address the machine has; they tell no secrets.
HEALTH = ("/healthz", "/readyz")

SECURITY = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer browsers would hide the Origin of our own forms, too
]
NOT_KEPT = [*SECURITY, (b"cache-control", b"no-store")]


class Front:
    """Wraps the router."""

    def __init__(self, router: ASGIApp, routes: Iterable[BaseRoute], hosts: frozenset[str], metrics: Metrics) -> None:
        self._router = router
        self._routes = routes
        self._hosts = hosts
        self._metrics = metrics
        self._known: set[bytes] = set()  # Host headers that were found good

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        api = scope["path"].startswith(API)
        headers = NOT_KEPT if api else SECURITY
        if api and scope["method"] == "HEAD":  # the server leaves the body out, it has kept the scope as it was
            scope = {**scope, "method": "GET"}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            self._check_host(scope)
            await self._router(scope, receive, send_on)
        except Exception as error:
            if status:
                raise
            response = problem(error, as_page=not api and "text/html" in (header(scope, b"accept") or ""))
            if isinstance(error, HTTPException) and error.status_code == 405:
                response.headers["Allow"] = self._methods(scope)
            await response(scope, receive, send_on)
        finally:
            if status:
                route = f"{scope['method']} {scope.get('template', 'unknown')}"
                self._metrics.request(route, status, time.perf_counter() - begun)

    def _check_host(self, scope: MutableMapping[str, Any]) -> None:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) == 1 and given[0] in self._known:
            return
        host = given[0].decode("latin-1") if len(given) == 1 else ""
        if name_of(host) not in self._hosts and scope["path"] not in HEALTH:
            raise HostNotAllowed(host)
        if name_of(host) in self._hosts and len(self._known) < 100:
            self._known.add(given[0])

    def _methods(self, scope: Scope) -> str:
        """Return every method that some route takes at this address."""
        methods: set[str] = set()
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                methods |= getattr(route, "methods", None) or set()
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))
