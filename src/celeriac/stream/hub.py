"""The hub: one ear per web process, and everybody there who waits for a job to end.

Whoever waits registers first, then reads the ledger, then waits; so no end is missed. The
end is told by an announcement, or else found by the look at the ledger that the hub takes
every second, one for all who wait. Next: `ledger/read.py`, where the truth is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TypeAlias

from celeriac.broker import Ear, Listener, listen
from celeriac.ledger import Ledger, read

log = logging.getLogger(__name__)

Waiter: TypeAlias = "asyncio.Future[None]"
LOOK_SECONDS = 1.0


class Hub:
    """Wakes waiters on the event loop it was started on; ten thousand of them cost one query a second."""

    def __init__(self, ledger: Ledger, announcements_url: str) -> None:
        self._ledger = ledger
        self._url = announcements_url
        self._waiters: dict[str, set[Waiter]] = {}
        self._closing = False
        self._listener: Listener | None = None
        self._looking: asyncio.Task[None] | None = None
        self._missed = asyncio.Event()  # something may have been announced that was not heard

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return sum(map(len, self._waiters.values()))

    def start(self) -> None:
        """Begin to listen; called on the event loop."""
        self._listener = listen(self._url, Ear.HUB)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener.fileno(), self._hear)
        self._looking = loop.create_task(self._look())

    def wake_all(self) -> None:
        """Wake everybody, now and from now on: the process is stopping."""
        self._closing = True
        for id in list(self._waiters):
            self._wake(id)

    async def stop(self) -> None:
        """Wake everybody and stop listening."""
        self.wake_all()
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    @contextlib.contextmanager
    def watching(self, id: str) -> Iterator[Waiter]:
        """Give a future that is done once the job ended, was found ended or gone, or the process stops.

        Read the ledger inside the block before you wait: what ended earlier is not told again.
        """
        waiter: Waiter = asyncio.get_running_loop().create_future()
        if self._closing:
            waiter.set_result(None)
        self._waiters.setdefault(id, set()).add(waiter)
        try:
            yield waiter
        finally:
            waiters = self._waiters.get(id)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[id]

    async def look_once(self) -> None:
        """Read the ledger for everybody who waits: the step that makes lost announcements harmless."""
        if not self._waiters:
            return
        ids = list(self._waiters)
        for id in await asyncio.to_thread(read.ended, self._ledger, ids):
            self._wake(id)

    async def _look(self) -> None:
        troubled = False
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._missed.wait(), LOOK_SECONDS)
            self._missed.clear()
            try:
                await self.look_once()
                troubled = False
            except Exception as error:
                if not troubled:
                    log.warning("The hub could not look at the ledger and keeps trying: %s", error)
                troubled = True

    def _hear(self) -> None:
        if self._listener is None:
            return
        for news in self._listener.receive():
            for id in news.ends:
                self._wake(id)
            if not news:
                self._missed.set()

    def _wake(self, id: str) -> None:
        for waiter in self._waiters.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)
