"""The publisher: a thread of each process that commits jobs, which tells the broker of them.

Called after each commit (instance.py). It never makes its caller wait and keeps no more than a window of hints for
each queue. While the broker cannot be reached it takes nothing, and what it had goes the ledger's own way, so that
work goes on. What is lost here or there is sent again by the keeper's dispatcher. Next: consumer.py.
"""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Protocol

from celeriac.broker.letters import hint, is_carried
from celeriac.failpoints import failpoint

log = logging.getLogger(__name__)

PAUSE_SECONDS, PAUSE_MOST_SECONDS = 0.1, 5.0
# A sending that takes longer counts as an outage: its successors go the ledger's way.
SLOW_SECONDS = 0.5
# A queue known to be full is not asked again for so long.
FULL_SECONDS = 1.0
EXIT_SECONDS = 1.0


class Sender(Protocol):
    """One connection to a broker, to send by; any error of it ends it. `sent` counts its hints."""

    sent: int

    def send(self, hints: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Send hints as far as the window allows; return how many messages then lie in each queue."""

    def fill(self, levels: Mapping[str, int]) -> dict[str, int]:
        """Send hints until so many messages lie in each queue; return how many do."""

    def tidy(self) -> None:
        """Put back what dead receivers held, where the broker does not do so by itself."""

    def close(self) -> None:
        """Close the connection."""


class Publisher:
    """Sends hints until closed; any thread of its process may use it."""

    def __init__(
        self, load: Callable[[], Callable[[], Sender]], window: int, otherwise: Callable[[Iterable[str]], None]
    ) -> None:
        self.up = False
        self.sent = 0
        self.depths: dict[str, int] = {}  # by queue, as last seen
        self._load = load  # imports what connects, which a thread could not do any more while the program ends
        self._window = window
        self._otherwise = otherwise  # tells of queues in the ledger's own way
        self._jobs: dict[str, deque[str]] = {}
        self._sending: dict[str, deque[str]] = {}
        self._levels: dict[str, int] = {}
        self._tidy = False
        self._full_until: dict[str, float] = {}
        self._down = False  # the last attempt has failed
        self._busy_since: float | None = None
        self._wake = threading.Condition()
        self._started = self._closing = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="celeriac-publisher", daemon=True)

    @property
    def down(self) -> bool:
        """Whether the broker could not be reached, or does not answer."""
        busy = self._busy_since
        return self._down or (busy is not None and time.monotonic() - busy > SLOW_SECONDS)

    def tell(self, queues: Mapping[str, Sequence[str]]) -> Container[str]:
        """Take the jobs that came to queues, to hint at them; return the queues that need not be told of otherwise."""
        now = time.monotonic()
        if not queues or self.down or self._closing:
            return ()
        carried = set(filter(is_carried, queues))
        with self._wake:
            for queue in carried:
                if self._full_until.get(queue, 0) < now:
                    self._jobs.setdefault(queue, deque(maxlen=self._window)).extend(queues[queue])
            self._begin()
        return carried

    def fill(self, levels: Mapping[str, int], tidy: bool = False) -> None:
        """See to it that so many messages lie in each queue, and learn how many do."""
        with self._wake:
            self._levels.update({queue: level for queue, level in levels.items() if is_carried(queue)})
            self._tidy |= tidy
            self._begin()

    def close(self) -> None:
        """Send what waits, for a second at most, and nothing any more."""
        if os.getpid() != self._pid:  # a child that was forked: its parent's thread may have held the lock
            return
        with self._wake:
            self._closing = True
            self._wake.notify()
        atexit.unregister(self.close)
        if self._started:
            self._thread.join(EXIT_SECONDS)

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._connect = self._load()
            try:
                self._thread.start()
            except RuntimeError:  # the program is ending and may begin no thread; the dispatcher will see the job
                self._started, self._closing = False, True
                return
            atexit.register(self.close)  # what a short program has submitted is told before it ends
        self._wake.notify()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while not self._closing:
            try:
                self._busy_since = time.monotonic()
                with closing(self._connect()) as sender:
                    if self._down:
                        log.warning("The broker can be used again.")
                    self.up, self._down, self._busy_since, pause = True, False, None, PAUSE_SECONDS
                    self._serve(sender)
            except Exception as error:  # whatever it is, it costs speed and nothing else
                told = logging.DEBUG if self._down else logging.WARNING
                self.up, self._down = False, True
                log.log(told, "The broker cannot be told of work, which goes on without: %s", as_line(error))
                self._give_up()
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, pause)
                pause = min(2 * pause, PAUSE_MOST_SECONDS)
            finally:
                self.up, self._busy_since = False, None

    def _serve(self, sender: Sender) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._levels or self._tidy or self._closing)
                jobs, levels, tidy = self._jobs, self._levels, self._tidy
                self._jobs, self._sending, self._levels, self._tidy = {}, jobs, {}, False
                self._busy_since = time.monotonic()
            if not (jobs or levels or tidy):
                return
            failpoint("before-publish")
            depths = sender.send({queue: [hint(job) for job in named] for queue, named in jobs.items()}) if jobs else {}
            depths |= sender.fill(levels) if levels else {}
            if tidy:
                sender.tidy()
            failpoint("after-publish")
            self._note(depths, sender.sent)
            sender.sent = 0

    def _note(self, depths: dict[str, int], hints: int) -> None:
        full_until = time.monotonic() + FULL_SECONDS
        with self._wake:
            self.sent += hints
            self.depths |= depths
            self._sending, self._busy_since = {}, None
            self._full_until = {queue: full_until for queue, depth in self.depths.items() if depth >= self._window}

    def _give_up(self) -> None:
        """Tell in the ledger's way of what was to be sent."""
        with self._wake:
            queues = self._jobs | self._sending
            self._jobs, self._sending, self._levels = {}, {}, {}
        if queues:
            self._otherwise(queues)


def as_line(error: Exception) -> str:
    """Return an error as one line of text."""
    return " ".join(str(error).split()) or type(error).__name__
