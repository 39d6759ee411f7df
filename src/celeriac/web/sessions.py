"""Sessions: the cookie a browser gets for a login ticket, signed and self-contained.

It carries owner, role and end; nothing of it is stored. The key is the setting, or else a file
in the home folder, made on first use (0600). Called by `auth.py` and `pages/login.py`.
"""

import contextlib
import hashlib
import os
import secrets
from functools import cached_property
from pathlib import Path

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.requests import Request

from celeriac import clock
from celeriac.access import Principal, Role
from celeriac.access.principals import PERMISSIONS
from celeriac.settings import Settings, prepare_home


class Sessions:
    """Makes and reads session cookies."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def seconds(self) -> int:
        """How long a session lasts."""
        return int(self._settings.session_hours * 3600)

    def cookie(self, owner: str, role: Role) -> str:
        """Return the value of a cookie that lets this owner in until the session ends."""
        return str(self._signer.dumps([owner, role, clock.micros() + self.seconds * 1_000_000]))

    def principal(self, cookie: str) -> Principal | None:
        """Return whose session it is, or None when it is over or not one of ours."""
        try:
            owner, role, until = self._signer.loads(cookie)
            if clock.micros() > int(until):
                return None
            return Principal(str(owner), PERMISSIONS[Role(role)])
        except (BadSignature, TypeError, ValueError):
            return None

    @cached_property
    def name(self) -> str:
        """The cookie's name. Browsers share cookies between the ports of a host, instances must not."""
        return f"celeriac_{hashlib.sha256(self._key.encode()).hexdigest()[:8]}"

    def cookie_of(self, header: str | None) -> str | None:
        """Return our cookie out of a Cookie header, or None."""
        for pair in (header or "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.name:
                return value
        return None

    def is_open(self, request: Request) -> bool:
        """Say whether a browser is logged in."""
        return self.principal(self.cookie_of(request.headers.get("cookie")) or "") is not None

    @cached_property
    def _key(self) -> str:
        return self._settings.secret_key or key_of(self._settings.home)

    @cached_property
    def _signer(self) -> URLSafeSerializer:
        return URLSafeSerializer(self._key, salt="celeriac session")


def key_of(home: Path) -> str:
    """Return the key kept in the home folder, made if there is none; processes that start together agree on one."""
    path = prepare_home(home) / "secret"
    draft = path.with_name(f"secret.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()
