"""Who is asking: a bearer token or a session cookie, and the guard that stands before every route.

A route without a declared permission cannot be built (`guard`). Tokens and sessions are looked up
in the ledger and remembered for a second, so a revoked one is refused within that time. A change
asked for with a cookie must come from our own pages. Next: the handlers in `api/`.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
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
REMEMBER_SECRETS = 10_000
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Holders:
    """Whose secrets these are: asked of the ledger, and remembered for a second."""

    def __init__(self, look_up: Callable[[str], Principal | None]) -> None:
        self._look_up = look_up
        self._known: dict[str, tuple[float, Principal]] = {}
        self._asking: dict[str, asyncio.Task[Principal | None]] = {}

    def known(self, name: str) -> Principal | None:
        """Return who was found for a name (what stands in a header, say: a digest costs two microseconds)."""
        found = self._known.get(name)
        return found[1] if found is not None and found[0] > clock.monotonic() else None

    async def of(self, name: str, secret: str) -> Principal | None:
        """Return whose secret it is, or None; requests with the same name wait for the same answer."""
        if (known := self.known(name)) is not None:
            return known
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(self._ask(name, secret))
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(asking)

    async def _ask(self, name: str, secret: str) -> Principal | None:
        until = clock.monotonic() + REMEMBER_SECONDS
        principal = await asyncio.to_thread(self._look_up, secret)
        self._known.pop(name, None)
        if principal is not None:
            if len(self._known) >= REMEMBER_SECRETS:
                self._known.clear()
            self._known[name] = until, principal
        return principal

    def forget(self, name: str) -> None:
        """Ask again next time."""
        self._known.pop(name, None)


class Auth:
    """Finds the principal of a request."""

    def __init__(self, site: Site) -> None:
        self.sessions = Sessions(site.settings)
        self._of_token = Holders(lambda secret: keys.principal_of(site.ledger, secret))
        self._of_session = Holders(lambda secret: keys.session_of(site.ledger, secret))
        self._site = site

    async def principal(self, scope: Scope) -> Principal:
        """Return who asks. Raises Unauthorized, CrossSite."""
        authorization = header(scope, b"authorization")
        if authorization:
            return self._of_token.known(authorization) or await self._with_token(authorization)
        cookie = self.sessions.cookie_of(header(scope, b"cookie"))
        if cookie is None:
            raise Unauthorized("This needs a token: send it as `Authorization: Bearer …`, or log in with the browser.")
        principal = await self._of_session.of(cookie, cookie)
        if principal is None:
            raise Unauthorized("The session is over. Log in again.")
        check_same_site(scope)
        return principal

    async def _with_token(self, authorization: str) -> Principal:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("The header Authorization is not understood. Send `Authorization: Bearer …`.")
        principal = await self._of_token.of(authorization, secret.strip())
        if principal is None:
            raise Unauthorized("The token is not known here, has expired or was revoked.")
        return principal

    async def is_open(self, scope: Scope) -> bool:
        """Say whether a browser is logged in, as far as can be known now."""
        cookie = self.sessions.cookie_of(header(scope, b"cookie"))
        try:
            return cookie is not None and await self._of_session.of(cookie, cookie) is not None
        except CeleriacError:
            return False

    async def log_out(self, scope: Scope) -> None:
        """End the session that a request belongs to, if any."""
        cookie = self.sessions.cookie_of(header(scope, b"cookie"))
        if cookie is not None:
            await asyncio.to_thread(keys.end_session, self._site.ledger, cookie)
            self._of_session.forget(cookie)


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


__all__ = ["Auth", "Guard", "Holders", "check_same_site", "guard", "header", "places"]
