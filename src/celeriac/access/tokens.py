"""Secrets: how they are made and how they are remembered.

A token is 256 random bits; the ledger keeps only its SHA-256. A slow hash would add
nothing, since nobody can guess 256 bits, and would cost every request.
"""

import hashlib
import secrets

PREFIX = "cel_"


def new_secret() -> str:
    """Return a fresh secret: 256 bits, URL-safe, recognisable by its prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
