"""Waiting until the server is really there: web answers and every worker process is known to it.

A thread asks the server itself, as a client would, and posts one Ready; the supervisor then tells
the address. It asks over plain `http.client`, which keeps the supervisor small.
"""

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from celeriac import clock


class Ready:
    """Web answers and the workers are online."""


class Watch:
    """Asks until the server is ready, once per `begin`; an earlier question is dropped."""

    def __init__(self, url: str, token: Callable[[], str], post: Callable[[Ready], None]) -> None:
        self._url = url
        self._token = token
        self._post = post
        self._dropped = threading.Event()
        self.began_at = 0.0

    def begin(self, workers: Callable[[], set[int]]) -> None:
        """Start asking; `workers` says which process ids must be online."""
        self.drop()
        self._dropped = threading.Event()
        self.began_at = clock.monotonic()
        threading.Thread(target=self._ask, args=(workers, self._dropped), name="readiness", daemon=True).start()

    def drop(self) -> None:
        """Stop asking."""
        self._dropped.set()

    def _ask(self, workers: Callable[[], set[int]], dropped: threading.Event) -> None:
        while not dropped.wait(0.1):
            if is_ready(self._url, self._token(), workers()):
                if not dropped.is_set():
                    self._post(Ready())
                return


def is_ready(url: str, token: str, workers: set[int]) -> bool:
    """Say whether web answers and these processes are online as workers."""
    if answer(url, "/healthz", token) is None:
        return False
    told = answer(url, "/api/v1/workers", token)
    if not isinstance(told, dict):
        return False
    online = {worker.get("pid") for worker in told.get("workers", []) if worker.get("online", True)}
    return workers <= online


def answer(url: str, path: str, token: str = "") -> Any:
    """Return what a GET answers: JSON where it is JSON, text otherwise, None when it fails."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
        if response.status != 200:
            return None
        return json.loads(text) if "json" in response.getheader("Content-Type", "") else text
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
