"""Who is asking: a bearer token or a session cookie, and the guard that stands before every route.

A route without a declared permission cannot be built (`guard`). Tokens are looked up in the
ledger and remembered for a second, so a revoked one is refused within that time. A change
asked for with a cookie must come from our own pages. Next: the handlers in `api/`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from celeriac import clock
from celeriac.access import Permission, Principal
from celeriac.errors import CeleriacError, CrossSite, Forbidden, Unauthorized
from celeriac.ledger import keys
from celeriac.web.hosts import is_same_site
from celeriac.web.sessions import Sessions
from celeriac.web.site import Site

REMEMBER_SECONDS = 1.0
REMEMBER_TOKENS = 10_000
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Auth:
    """Finds the principal of a request."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sessions = Sessions(site.settings)
        self._known: dict[str, tuple[float, Principal]] = {}  # by the whole header: a digest costs two microseconds
        self._asking: dict[str, asyncio.Task[Principal | None]] = {}

    @property
    def sessions(self) -> Sessions:
        """The maker and reader of session cookies."""
        return self._sessions

    async def principal(self, scope: Scope) -> Principal:
        """Return who asks. Raises Unauthorized, CrossSite."""
        authorization = header(scope, b"authorization")
        if authorization:
            return await self._of_token(authorization)
        cookie = self._sessions.cookie_of(header(scope, b"cookie"))
        if cookie is None:
            raise Unauthorized("This needs a token: send it as `Authorization: Bearer …`, or log in with the browser.")
        principal = self._sessions.principal(cookie)
        if principal is None:
            raise Unauthorized("The session is over. Log in again.")
        check_same_site(scope)
        return principal

    async def _of_token(self, authorization: str) -> Principal:
        known = self._known.get(authorization)
        if known is not None and known[0] > clock.monotonic():
            return known[1]
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("The header Authorization is not understood. Send `Authorization: Bearer …`.")
        principal = await self._look_up(authorization, secret.strip())
        if principal is None:
            raise Unauthorized("The token is not known here, has expired or was revoked.")
        return principal

    async def _look_up(self, authorization: str, secret: str) -> Principal | None:
        """Ask the ledger; requests with the same token wait for the same answer."""
        asking = self._asking.get(authorization)
        if asking is None:
            asking = self._asking[authorization] = asyncio.create_task(self._ask(authorization, secret))
            asking.add_done_callback(lambda _: self._asking.pop(authorization, None))
        return await asyncio.shield(asking)

    async def _ask(self, authorization: str, secret: str) -> Principal | None:
        until = clock.monotonic() + REMEMBER_SECONDS
        principal = await asyncio.to_thread(keys.principal_of, self._site.ledger, secret)
        self._known.pop(authorization, None)
        if principal is not None:
            if len(self._known) >= REMEMBER_TOKENS:
                self._known.clear()
            self._known[authorization] = until, principal
        return principal


class Guard:
    """Stands before one route and lets through who carries its permission."""

    def __init__(self, route: ASGIApp, path: str, permission: Permission, auth: Auth) -> None:
        self._route = route
        self._path = path
        self._permission = permission
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand over; note the route, by which requests are counted."""
        scope["template"] = self._path
        if self._permission is not Permission.PUBLIC:
            principal = await self._auth.principal(scope)
            if not principal.may(self._permission):
                raise Forbidden(self._permission)
            scope["principal"] = principal
        elif self._auth.sessions.cookie_of(header(scope, b"cookie")) is not None:
            check_same_site(scope)
        await self._route(scope, receive, send)


def guard(routes: Iterable[BaseRoute], permissions: Mapping[tuple[str, str], Permission], auth: Auth) -> None:
    """Put a guard before every route.

    Raises:
        CeleriacError: when a route declares no permission.
    """
    for route in routes:
        for place in places(route):
            if place not in permissions:
                raise CeleriacError(
                    f"The route {' '.join(place)} declares no permission. Add it to web/permissions.py."
                )
        [(path, permission)] = {(place[1], permissions[place]) for place in places(route)}
        routed: Any = route
        routed.app = Guard(routed.app, path, permission, auth)


def places(route: BaseRoute) -> list[tuple[str, str]]:
    """Return (method, path) of everything a route answers to; a folder of files answers to GET."""
    shown: Any = route
    methods = set(getattr(shown, "methods", None) or {"GET"}) - {"HEAD"}
    return [(method, getattr(shown, "path_format", None) or shown.path) for method in sorted(methods)]


def check_same_site(scope: Scope) -> None:
    """Refuse a change that another site's page asks for with our cookie.

    Raises:
        CrossSite: unless the browser says that the request comes from this very origin.
    """
    if scope["method"] in SAFE:
        return
    site, origin = header(scope, b"sec-fetch-site"), header(scope, b"origin")
    if site:
        if site == "same-origin":
            return
    elif origin and is_same_site(origin, header(scope, b"host") or ""):
        return
    raise CrossSite(
        f"This change was asked for by a page of {origin or 'an unknown site'}. "
        "With a session cookie only pages of this server may change something; elsewhere use a token."
    )


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header's value, or None."""
    for given, value in scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return None


__all__ = ["Auth", "Guard", "check_same_site", "guard", "header", "places"]
