"""Waves: the moves of concurrent requests, gathered so that they share a commit.

A lone request goes at once. When several came together last time, the first of the next ones
waits up to a millisecond for the others: without that, clients fall into two cohorts that
take turns, and each commit serves half of them. However slow the ledger is, everybody is answered within a
bounded time, and only so many wait. Called by the handlers through `Site.do`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from celeriac.errors import LedgerBusy, LedgerUnavailable, LedgerUncertain
from celeriac.ledger import Group, Move

LINGER_SECONDS = 0.001
# So many share a commit well enough; waiting for more would only leave the writer idle.
ENOUGH = 24
# Who has waited so long is told to come again; and so is whoever comes while so many wait.
ANSWER_SECONDS = 10.0
WAITING_MOST = 5_000
LOOK_SECONDS = 1.0


class Asked(NamedTuple):
    """A move of a request, what tells its answer to the waves, and what the request waits for."""

    move: Move[Any, Any]
    item: Any
    settle: Callable[[Any], None]
    future: "asyncio.Future[Any]"
    late_at: float


class Waves:
    """Hands moves to the group, one wave after the other; lives on one event loop."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Asked] = []
        self._asked: deque[Asked] = deque()  # all of late, with those that were answered since the last look
        self._flying = 0
        self._size = 0
        self._expected = 1  # how many the next wave should have before it goes early
        self._going = False
        self._timer: asyncio.Handle | None = None

    def add(self, move: Move[Any, Any], item: Any) -> "asyncio.Future[Any]":
        """Take a move; the future gets its answer, or its error, after the commit.

        Raises LedgerBusy when too many wait already.
        """
        if self._flying + len(self._gathered) >= WAITING_MOST:
            raise LedgerBusy(f"{WAITING_MOST:,} requests wait for the ledger already. This one was not accepted.")
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

        if not self._asked:
            self._loop.call_later(LOOK_SECONDS, self._look)
        asked = Asked(move, item, settle, future, self._loop.time() + ANSWER_SECONDS)
        self._asked.append(asked)
        self._gathered.append(asked)
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
        for move, item, settle, _, _ in wave:
            try:
                self._group.add(move, item, settle)
            except LedgerUnavailable as error:  # the process is stopping
                settle(error)

    def _look(self) -> None:
        """Answer those whose time is up; what the ledger has not begun with is taken back."""
        late: dict[Callable[[Any], None], asyncio.Future[Any]] = {}
        while self._asked and (self._asked[0].future.done() or self._asked[0].late_at <= self._loop.time()):
            asked = self._asked.popleft()
            if not asked.future.done():
                late[asked.settle] = asked.future
        if late:
            self._go()  # who still gathers is as late
        for settle in self._group.withdraw(late):
            late.pop(settle)
            settle(LedgerBusy(f"The ledger has not come to it within {ANSWER_SECONDS:g} s. Nothing was accepted."))
        for future in late.values():
            future.set_exception(LedgerUncertain())
        if self._asked:
            self._loop.call_later(LOOK_SECONDS, self._look)
