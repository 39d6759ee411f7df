"""Tokens, login tickets and sessions: only digests are kept, and a ticket opens the door once.

`web/auth.py` asks here who a secret belongs to; `cli/token.py` and `web/api/tokens.py` make and
revoke tokens and end sessions; `web/pages/login.py` makes a session of a ticket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from celeriac import clock
from celeriac.access import Principal, Role, digest, faults_of, new_secret
from celeriac.access.principals import PERMISSIONS
from celeriac.errors import InvalidRequest, TokenNotFound
from celeriac.jobs import new_id
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Ledger

_INSERT = Sql(
    "INSERT INTO tokens (id, name, digest, owner, role, tasks, created_at, expires_at)"
    " VALUES (:id, :name, :digest, :owner, :role, :tasks, :now, :expires_at) ON CONFLICT (digest) DO NOTHING"
)
_FIND = Sql(
    "SELECT owner, role, tasks FROM tokens WHERE digest = :digest AND revoked_at IS NULL"
    " AND (expires_at IS NULL OR expires_at > :now)"
)
_COLUMNS = "SELECT id, name, owner, role, tasks, created_at, expires_at, revoked_at FROM tokens"
_ALL = Sql(f"{_COLUMNS} ORDER BY created_at DESC, id DESC LIMIT 500")
_ONE = Sql(f"{_COLUMNS} WHERE id = :id OR digest = :id")
_REVOKE = Sql("UPDATE tokens SET revoked_at = :now WHERE (id = :id OR name = :id) AND revoked_at IS NULL")
_INSERT_TICKET = Sql(
    "INSERT INTO tickets (digest, owner, role, expires_at) VALUES (:digest, :owner, :role, :expires_at)"
)
_USE_TICKET = Sql("DELETE FROM tickets WHERE digest = :digest AND expires_at > :now RETURNING owner, role")
_INSERT_SESSION = Sql(
    "INSERT INTO sessions (digest, owner, role, expires_at) VALUES (:digest, :owner, :role, :expires_at)"
)
_FIND_SESSION = Sql("SELECT owner, role, NULL AS tasks FROM sessions WHERE digest = :digest AND expires_at > :now")
_END_SESSION = Sql("DELETE FROM sessions WHERE digest = :digest")
_END_SESSIONS = Sql("DELETE FROM sessions WHERE owner = :owner")


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; its secret is shown once, when it is made."""

    id: str
    name: str
    owner: str
    role: Role
    tasks: tuple[str, ...]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


def create_token(
    ledger: Ledger, name: str, owner: str, role: Role, expires_at: int | None = None, tasks: Sequence[str] = ()
) -> str:
    """Make a token and return its secret, which cannot be read again. Raises InvalidRequest with all its faults."""
    faults = faults_of(name, owner, role, tasks)
    if faults:
        raise InvalidRequest.of(faults)
    secret = new_secret()
    remember_token(ledger, secret, name, owner, role, expires_at, tasks)
    return secret


def remember_token(
    ledger: Ledger, secret: str, name: str, owner: str, role: Role, expires_at: int | None = None,
    tasks: Sequence[str] = (),
) -> None:  # fmt: skip
    """Enter a token whose secret exists already (the one in the home folder), once: revoked, it stays revoked."""
    with ledger.transaction() as tx:
        tx.run(
            _INSERT, id=new_id(), name=name, digest=digest(secret), owner=owner, role=role, now=clock.micros(),
            tasks=as_json(tasks) if tasks else None, expires_at=expires_at,
        )  # fmt: skip


def all_tokens(ledger: Ledger) -> list[Token]:
    """Return the newest 500 tokens, revoked ones included."""
    with ledger.reading() as connection:
        return [_token(row) for row in connection.execute(_ALL.on(ledger.dialect))]


def token(ledger: Ledger, id: str) -> Token:
    """Return the token with this id or digest. Raises TokenNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_ONE.on(ledger.dialect), {"id": id}).first()
    if row is None:
        raise TokenNotFound(id)
    return _token(row)


def revoke_token(ledger: Ledger, id: str) -> int:
    """Revoke the tokens with this id or name; return how many."""
    with ledger.transaction() as tx:
        return tx.run(_REVOKE, id=id, now=clock.micros()).rowcount


def principal_of(ledger: Ledger, secret: str) -> Principal | None:
    """Return whose token this is, or None when it is unknown, expired or revoked."""
    return _holder(ledger, _FIND, secret)


def create_ticket(ledger: Ledger, owner: str, role: Role, seconds: float = 600) -> str:
    """Make a ticket that logs a browser in once within so many seconds; return its secret."""
    secret = new_secret()
    with ledger.transaction() as tx:
        expires_at = clock.micros() + int(seconds * 1_000_000)
        tx.run(_INSERT_TICKET, digest=digest(secret), owner=owner, role=role, expires_at=expires_at)
    return secret


def use_ticket(ledger: Ledger, secret: str) -> tuple[str, Role] | None:
    """Use up a ticket; return owner and role, or None when it is unknown, old or used."""
    with ledger.transaction() as tx:
        row: Any = tx.run(_USE_TICKET, digest=digest(secret), now=clock.micros()).first()
    return None if row is None else (row.owner, Role(row.role))


def create_session(ledger: Ledger, owner: str, role: Role, seconds: float) -> str:
    """Let a browser in for so many seconds; return the secret for its cookie."""
    secret = new_secret()
    with ledger.transaction() as tx:
        expires_at = clock.micros() + int(seconds * 1_000_000)
        tx.run(_INSERT_SESSION, digest=digest(secret), owner=owner, role=role, expires_at=expires_at)
    return secret


def session_of(ledger: Ledger, secret: str) -> Principal | None:
    """Return whose session this is, or None when it is unknown, expired or ended."""
    return _holder(ledger, _FIND_SESSION, secret)


def end_session(ledger: Ledger, secret: str) -> None:
    """End a session, if it is one; whoever has its secret is a stranger from now on."""
    with ledger.transaction() as tx:
        tx.run(_END_SESSION, digest=digest(secret))


def end_sessions(ledger: Ledger, owner: str) -> int:
    """End all sessions of an owner; return how many."""
    with ledger.transaction() as tx:
        return tx.run(_END_SESSIONS, owner=owner).rowcount


def _holder(ledger: Ledger, find: Sql, secret: str) -> Principal | None:
    parameters = {"digest": digest(secret), "now": clock.micros()}
    with ledger.reading() as connection:
        row = connection.execute(find.on(ledger.dialect), parameters).first()
    return None if row is None else Principal(row.owner, PERMISSIONS[Role(row.role)], _tasks(row))


def _token(row: Any) -> Token:
    return Token(
        row.id, row.name, row.owner, Role(row.role), _tasks(row), row.created_at, row.expires_at, row.revoked_at
    )


def _tasks(row: Any) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(row.tasks)) if row.tasks else ()
