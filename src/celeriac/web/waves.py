"""Waves: the moves of concurrent requests, gathered so that they share a commit.

A lone request goes at once. When several came together last time, the first of the next ones
waits up to a millisecond for the others: without that, clients fall into two cohorts that
take turns, and each commit serves half of them. Called by the handlers through `Site.do`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from celeriac.errors import LedgerUnavailable
from celeriac.ledger import Group, Move

LINGER_SECONDS = 0.001
# So many share a commit well enough; waiting for more would only leave the writer idle.
ENOUGH = 24


class Waves:
    """Hands moves to the group, one wave after the other; lives on one event loop."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._gathered: list[tuple[Move[Any, Any], Any, Callable[[Any], None]]] = []
        self._flying = 0
        self._size = 0
        self._expected = 1  # how many the next wave should have before it goes early
        self._going = False
        self._timer: asyncio.Handle | None = None

    def add(self, move: Move[Any, Any], item: Any) -> "asyncio.Future[Any]":
        """Take a move; the future gets its answer, or its error, after the commit."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def settle(answer: Any) -> None:
            self._flying -= 1
            if not future.done():
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            if not self._flying:
                # Who was answered just now probably asks again at once.
                self._expected = min(self._size + len(self._gathered), ENOUGH)
                if self._gathered:
                    self._plan()

        self._gathered.append((move, item, settle))
        if not self._flying or len(self._gathered) == ENOUGH:
            self._plan()
        return future

    def _plan(self) -> None:
        if self._going:
            return
        if len(self._gathered) >= self._expected:
            self._going = True
            self._loop.call_soon(self._go)
        elif self._timer is None:
            self._timer = self._loop.call_later(LINGER_SECONDS, self._go)

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._going, self._timer = False, None
        wave, self._gathered = self._gathered, []
        self._size = len(wave)
        self._flying += len(wave)
        for move, item, settle in wave:
            try:
                self._group.add(move, item, settle)
            except LedgerUnavailable as error:  # the process is stopping
                settle(error)
