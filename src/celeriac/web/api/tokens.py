"""Tokens over HTTP: make, list and revoke them, and end sessions, for who carries the permission `tokens`.

The secret is in the answer to its making and nowhere else, ever.
"""

import asyncio
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from celeriac import clock
from celeriac.access import Role, digest, faults_of
from celeriac.clock import rfc3339
from celeriac.errors import Fault, InvalidRequest, TokenNotFound
from celeriac.ledger import Ledger, keys
from celeriac.ledger.keys import Token
from celeriac.web.api import PREFIX
from celeriac.web.api.bodies import read_shape
from celeriac.web.api.jobs import answer, is_id
from celeriac.web.api.moments import future
from celeriac.web.api.queries import NoQuery
from celeriac.web.site import site


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """A token to be made."""

    name: Annotated[str, Meta(description="What it is for: 1 to 64 printable characters.")]
    role: Annotated[Role, Meta(description="What it may do.")] = Role.SUBMITTER
    owner: Annotated[str | None, Meta(description="Whose jobs it submits; the name if not given.")] = None
    tasks: Annotated[list[str], Meta(description="Patterns of the only tasks it may submit and retry.")] = []
    expires_at: Annotated[str | None, Meta(description="When it ends; never if not given.")] = None


class TokenShape(msgspec.Struct, omit_defaults=True):
    """A token. `secret` is there once, in the answer to its making."""

    id: str
    name: str
    owner: str
    role: Role
    tasks: tuple[str, ...]
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    secret: str | msgspec.UnsetType = msgspec.UNSET


class TokenPage(msgspec.Struct):
    """The newest 500 tokens, revoked ones included."""

    tokens: list[TokenShape]


class EndedSessions(msgspec.Struct):
    """How many sessions of an owner were ended."""

    owner: str
    ended: int


def add(app: FastAPI) -> None:
    """Add the routes."""
    app.get(f"{PREFIX}/tokens")(all_tokens)
    app.post(f"{PREFIX}/tokens", status_code=201)(make_token)
    app.delete(f"{PREFIX}/tokens/{{id}}")(revoke)
    app.delete(f"{PREFIX}/sessions/{{owner}}")(end_sessions)


def all_tokens(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the newest 500 tokens, revoked ones included."""
    return answer(TokenPage([_shape(token) for token in keys.all_tokens(site(request).ledger)]))


async def make_token(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Make a token. Its secret is shown only in this answer."""
    body = await read_shape(request.scope, request.receive, site(request).settings.max_body_bytes, TokenBody)
    owner, expires_at = _checked(body)
    return answer(await asyncio.to_thread(_make, site(request).ledger, body, owner, expires_at), 201)


def revoke(request: Request, id: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Revoke a token; it is refused within a second. Revoking twice changes nothing."""
    ledger = site(request).ledger
    if not is_id(id):
        raise TokenNotFound(id)
    known = keys.token(ledger, id)
    keys.revoke_token(ledger, known.id)
    return answer(_shape(keys.token(ledger, known.id)))


def end_sessions(request: Request, owner: str, query: Annotated[NoQuery, Query()]) -> Response:
    """End all sessions of an owner in the browser; their cookies are refused within a second."""
    count = keys.end_sessions(site(request).ledger, owner) if is_id(owner) else 0
    return answer(EndedSessions(owner, count))


def _checked(body: TokenBody) -> tuple[str, int | None]:
    owner = body.name if body.owner is None else body.owner
    faults = faults_of(body.name, owner, body.role, body.tasks)
    expires_at = None
    if body.expires_at is not None:
        try:
            expires_at = future(body.expires_at, clock.micros())
        except ValueError as error:
            faults.append(Fault("/expires_at", str(error)))
    if faults:
        raise InvalidRequest.of(faults)
    return owner, expires_at


def _make(ledger: Ledger, body: TokenBody, owner: str, expires_at: int | None) -> TokenShape:
    secret = keys.create_token(ledger, body.name, owner, body.role, expires_at, body.tasks)
    shape = _shape(keys.token(ledger, digest(secret)))
    shape.secret = secret
    return shape


def _shape(token: Token) -> TokenShape:
    return TokenShape(
        token.id, token.name, token.owner, token.role, token.tasks, rfc3339(token.created_at),
        rfc3339(token.expires_at), rfc3339(token.revoked_at),
    )  # fmt: skip
