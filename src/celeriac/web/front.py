"""The front: the outermost layer, which every request passes.

Refuses hosts that are not served here, hands the rest to the router, adds the security
headers to every answer and makes a problem of every error. Pure ASGI, since each layer is
paid by each request. Next: the route's guard in `auth.py`.
"""

from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celeriac.errors import HostNotAllowed
from celeriac.web.hosts import name_of
from celeriac.web.problems import problem

API = "/api/"
# Asked by whoever supervises the process, under whatever address the machine has; they tell no secrets.
HEALTH = ("/healthz", "/readyz")

SECURITY = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
NOT_KEPT = [*SECURITY, (b"cache-control", b"no-store")]


class Front:
    """Wraps the router."""

    def __init__(self, router: ASGIApp, routes: Iterable[BaseRoute], hosts: frozenset[str]) -> None:
        self._router = router
        self._routes = routes
        self._hosts = hosts
        self._known: set[bytes] = set()  # Host headers that were found good

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        headers = SECURITY if not scope["path"].startswith(API) else NOT_KEPT
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            self._check_host(scope)
            await self._router(scope, receive, send_on)
        except Exception as error:
            if started:
                raise
            response = problem(error)
            if isinstance(error, HTTPException) and error.status_code == 405:
                response.headers["Allow"] = self._methods(scope)
            await response(scope, receive, send_on)

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
        return ", ".join(sorted(methods))
