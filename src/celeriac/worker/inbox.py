"""The inbox: what other threads want done in the thread of Celery's event loop (the hub), now or later.

The group calls back after its commits from here, pool threads report through it, the node sets
its timers with it. What is put in is done once, in order, and its errors are logged: Celery would
end the worker for one, or take it for a lost connection.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

log = logging.getLogger(__name__)


class Inbox:
    """Actions for the hub's thread. Once closed, whoever puts one in does it himself."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._actions: deque[Callable[[], object]] = deque()
        self._closed = False

    def put(self, action: Callable[[], object]) -> None:
        """Have something done as soon as the hub's thread is free (any thread)."""
        self._actions.append(action)
        if self._closed:
            self.drain()
        else:
            self._hub.call_soon(self.drain)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Have something done after a while (the hub's thread)."""
        self._hub.call_later(seconds, partial(_do, action))

    def drain(self) -> None:
        """Do everything that waits."""
        while self._actions:
            _do(self._actions.popleft())

    def close(self) -> None:
        """Do what waits, and rely on the hub no more."""
        self._closed = True
        self.drain()


def _do(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:
        log.exception("A callback in the hub's thread failed")
