"""Login and logout in the browser: a ticket is used up once and becomes a session cookie.

Tickets come from the command line; whoever has one may log in until it is used or too old. A logout
ends the session itself, not only this browser's part in it. Errors are pages here, since a person looks at them.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from celeriac.errors import CeleriacError
from celeriac.ledger import keys
from celeriac.web.auth import Auth
from celeriac.web.pages import page
from celeriac.web.site import Site


def routes(site: Site, auth: Auth) -> list[BaseRoute]:
    """Return the routes for logging in and out."""
    sessions = auth.sessions

    def opened(ticket: str) -> str | None:
        holder = keys.use_ticket(site.ledger, ticket)
        return None if holder is None else keys.create_session(site.ledger, *holder, sessions.seconds)

    async def login(request: Request) -> Response:
        if request.method == "HEAD":  # whoever only looks at a link does not use it up
            return page("login.html", 200, told="")
        ticket = request.query_params.get("ticket", "")
        try:
            secret = await asyncio.to_thread(opened, ticket) if ticket else None
        except CeleriacError as error:
            return page("login.html", error.status, told=error.detail)
        if secret is None and await auth.is_open(request.scope):
            return _home()  # the link was clicked twice
        if secret is None:
            told = "This login link was used before or is too old." if ticket else "A login link is missing."
            return page("login.html", 403, told=told)
        response = _home()
        sessions.give(response, secret, request.url.scheme == "https")
        return response

    async def logout(request: Request) -> Response:
        try:
            await auth.log_out(request.scope)
        except CeleriacError as error:
            return page("login.html", error.status, told=f"You are still logged in. {error.detail}")
        response = _home()
        sessions.take_back(response, request.url.scheme == "https")
        return response

    return [Route("/login", login, methods=["GET"]), Route("/logout", logout, methods=["POST"])]


def _home() -> Response:
    return RedirectResponse("/", 303, {"Cache-Control": "no-store"})
