"""Login and logout in the browser: a ticket is used up once and becomes a session cookie.

Tickets come from the command line; whoever has one may log in until it is used or too old.
Errors are pages here, since a person looks at them.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from celeriac.errors import CeleriacError
from celeriac.ledger import keys
from celeriac.web.pages import page
from celeriac.web.sessions import Sessions
from celeriac.web.site import Site


def routes(site: Site, sessions: Sessions) -> list[BaseRoute]:
    """Return the routes for logging in and out."""

    async def login(request: Request) -> Response:
        if request.method == "HEAD":  # whoever only looks at a link does not use it up
            return page("login.html", 200, told="")
        ticket = request.query_params.get("ticket", "")
        try:
            holder = await asyncio.to_thread(keys.use_ticket, site.ledger, ticket) if ticket else None
        except CeleriacError as error:
            return page("login.html", error.status, told=error.detail)
        if holder is None and sessions.is_open(request):
            return RedirectResponse("/", 303, {"Cache-Control": "no-store"})  # the link was clicked twice
        if holder is None:
            told = "This login link was used before or is too old." if ticket else "A login link is missing."
            return page("login.html", 403, told=told)
        response = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        response.set_cookie(
            sessions.name, sessions.cookie(*holder), max_age=sessions.seconds, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response

    async def logout(request: Request) -> Response:
        response = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        response.delete_cookie(sessions.name, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return response

    return [Route("/login", login, methods=["GET"]), Route("/logout", logout, methods=["POST"])]
