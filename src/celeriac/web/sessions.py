"""Sessions: the cookie a browser gets for a login ticket. It holds a secret; whose it is, the ledger knows.

So a session ends where it is ended (`ledger/keys.py`), whoever has a copy of the cookie. Called
by `auth.py` and `pages/login.py`.
"""

import hashlib
from functools import cached_property
from urllib.parse import urlsplit

from starlette.responses import Response

from celeriac.settings import Settings


class Sessions:
    """Gives, finds and takes back session cookies."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def seconds(self) -> int:
        """How long a session lasts."""
        return int(self._settings.session_hours * 3600)

    @cached_property
    def name(self) -> str:
        """The cookie's name. Browsers share cookies between the ports of a host, instances must not."""
        ledger = urlsplit(self._settings.ledger_url)
        place = f"{ledger.hostname}:{ledger.port}{ledger.path}"
        return f"celeriac_{hashlib.sha256(place.encode()).hexdigest()[:8]}"

    def cookie_of(self, header: str | None) -> str | None:
        """Return our cookie out of a Cookie header, or None."""
        for pair in (header or "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.name:
                return value
        return None

    def give(self, response: Response, secret: str, secure: bool) -> None:
        """Let a response bring the cookie."""
        response.set_cookie(
            self.name, secret, max_age=self.seconds, httponly=True, samesite="strict", secure=secure
        )  # fmt: skip

    def take_back(self, response: Response, secure: bool) -> None:
        """Let a response remove the cookie."""
        response.delete_cookie(self.name, httponly=True, samesite="strict", secure=secure)
