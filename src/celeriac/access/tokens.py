"""Secrets: how they are made and how they are remembered.

A token is 256 random bits; the ledger keeps only its SHA-256. A slow hash would add
nothing, since nobody can guess 256 bits, and would cost every request. Also says what is wrong
with a token that somebody asks for; `ledger/keys.py` makes it.
"""

import hashlib
import secrets
from collections.abc import Sequence

from celeriac.access.principals import Role
from celeriac.errors import Fault

PREFIX = "cel_"
NAME_LENGTH = 64
TASKS_MOST = 100


def new_secret() -> str:
    """Return a fresh secret: 256 bits, URL-safe, recognisable by its prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def faults_of(name: str, owner: str, role: Role, tasks: Sequence[str]) -> list[Fault]:
    """Return everything that is wrong with a token to be made."""
    faults = [
        Fault(path, f"must have 1 to {NAME_LENGTH} printable characters, without a space at either end")
        for path, text in (("/name", name), ("/owner", owner))
        if not (0 < len(text) <= NAME_LENGTH and text.isprintable() and text == text.strip())
    ]
    if "," in owner:
        faults.append(Fault("/owner", "must not hold a comma, which separates owners in a filter"))
    if tasks and role not in (Role.SUBMITTER, Role.OPERATOR):
        faults.append(Fault("/tasks", f"narrow a submitter or an operator, not {role}"))
    if len(tasks) > TASKS_MOST:
        faults.append(Fault("/tasks", f"are more than {TASKS_MOST}"))
    faults += [
        Fault(f"/tasks/{place}", "must have 1 to 255 printable characters")
        for place, pattern in enumerate(tasks[:TASKS_MOST])
        if not (0 < len(pattern) <= 255 and pattern.isprintable())
    ]
    return faults
