"""The consumer: a thread of a worker's main process that receives from the broker, through outages, for ever.

It has a connection of its own, apart from Celery's, so that no trouble of the broker's can stop the worker. What
arrives it hands over; it is acknowledged when the worker says so (`settle`). Next: worker/hints.py.
"""

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Protocol

from celeriac.broker.letters import Letter, is_carried
from celeriac.broker.publisher import PAUSE_MOST_SECONDS, PAUSE_SECONDS, as_line
from celeriac.failpoints import failpoint

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# A queue that cannot be received from is left alone for so long.
REFUSED_SECONDS = 60.0


class QueueRefused(Exception):
    """One queue cannot be received from, and the connection may have ended over it.

    `certain` says whether the broker spoke of this queue, or the connection ended as it was asked for.
    """

    def __init__(self, queue: str, error: Exception, certain: bool) -> None:
        super().__init__(f"queue {queue}: {as_line(error)}")
        self.queue, self.certain = queue, certain


class Receiver(Protocol):
    """One connection to a broker, to receive by; any error of it ends it.

    At most one message of a queue comes by itself before it is settled; `more` gives others.
    """

    def follow(self, queues: frozenset[str]) -> None:
        """Receive from these queues and no others. Raises QueueRefused for one that it cannot."""

    def receive(self, wake: int, seconds: float) -> list[Letter]:
        """Wait for messages, for something to be read from `wake`, or for the time to be over."""

    def more(self, queue: str, most: int) -> list[Letter]:
        """Return up to so many messages that lie in a queue."""

    def settle(self, letters: Iterable[Letter]) -> None:
        """Acknowledge messages."""

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Let messages be received again, by anybody."""

    def close(self) -> None:
        """Close the connection; what is unsettled is received again by somebody."""


class Consumer:
    """Hands what it receives to `take`, in its own thread. Everything else may be called by any thread.

    `take` answers with the letters that are to be acknowledged at once.
    """

    def __init__(self, connect: Callable[[], Receiver], take: Callable[[list[Letter]], list[Letter]]) -> None:
        self.up = False
        self._connect = connect
        self._take = take
        self._queues: frozenset[str] = frozenset()
        self._refused: dict[str, float] = {}  # queues that are left out, and until when
        self._suspect = ""  # the queue that the last one to be refused was
        self._orders: deque[Callable[[Receiver], None]] = deque()
        self._closing = threading.Event()
        self._trouble = ""  # what was last wrong, and is told once
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="celeriac-consumer", daemon=True)
        self._thread.start()

    def follow(self, queues: Iterable[str]) -> None:
        """Receive from these queues and no others."""
        carried = frozenset(filter(is_carried, queues))
        if carried != self._queues:
            self._queues = carried
            self._poke()

    def settle(self, letters: Iterable[Letter]) -> None:
        """Acknowledge messages, unless their connection was lost: then they come again."""
        self._order(lambda receiver: _settle(_open(letters, receiver), receiver.settle))

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Let messages be received again, by anybody."""
        self._order(lambda receiver: _settle(_open(letters, receiver), receiver.put_back))

    def more(self, queue: str, most: int) -> None:
        """Receive up to so many messages of a queue, whatever is unsettled."""
        self._order(lambda receiver: self._hand_over(receiver, receiver.more(queue, most)))

    def close(self, seconds: float = 2) -> None:
        """Receive no more."""
        self._closing.set()
        self._poke()
        self._thread.join(seconds)
        self._out.close()
        self._in.close()

    def _order(self, order: Callable[[Receiver], None]) -> None:
        self._orders.append(order)
        self._poke()

    def _poke(self) -> None:
        with contextlib.suppress(OSError):  # full: it is readable already
            self._in.send(b"!")

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while not self._closing.is_set():
            try:
                with closing(self._connect()) as receiver:
                    self._serve(receiver)
            except Exception as error:  # whatever it is, the worker goes on without the broker
                trouble = as_line(error)
                level = logging.DEBUG if trouble == self._trouble else logging.WARNING
                log.log(level, "The broker cannot be asked for work; the ledger is: %s", trouble)
                pause = PAUSE_SECONDS if self.up else min(2 * pause, PAUSE_MOST_SECONDS)
                self.up, self._trouble = False, trouble
                self._orders.clear()
                if isinstance(error, QueueRefused) and self._leaves_out(error):
                    pause = PAUSE_SECONDS
                self._closing.wait(pause)

    def _leaves_out(self, refused: QueueRefused) -> bool:
        """Leave a queue out for a while, unless it may have been the connection's fault: twice in a row it was not."""
        out = refused.certain or refused.queue == self._suspect
        self._suspect = "" if out else refused.queue
        if out:
            self._refused[refused.queue] = time.monotonic() + REFUSED_SECONDS
            log.warning("The queue %s is left out for a minute; its work is found in the ledger.", refused.queue)
        return out

    def _serve(self, receiver: Receiver) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(OSError):
                while self._out.recv(4096):
                    pass
            while self._orders:
                self._orders.popleft()(receiver)
            now = time.monotonic()
            receiver.follow(frozenset(queue for queue in self._queues if self._refused.get(queue, 0.0) <= now))
            self._suspect = ""
            if self._trouble:
                log.warning("The broker can be asked for work again.")
            self.up, self._trouble = True, ""
            self._hand_over(receiver, receiver.receive(self._out.fileno(), _LOOK_SECONDS))

    def _hand_over(self, receiver: Receiver, letters: list[Letter]) -> None:
        if not letters:
            return
        failpoint("after-receive")
        if at_once := self._take(letters):
            _settle(at_once, receiver.settle)


def _open(letters: Iterable[Letter], receiver: Receiver) -> list[Letter]:
    """Return those of these letters that can still be settled; they are, then."""
    found = [letter for letter in letters if letter.source is receiver and not letter.settled]
    for letter in found:
        letter.settled = True
    return found


def _settle(letters: Iterable[Letter], how: Callable[[Iterable[Letter]], None]) -> None:
    failpoint("before-ack")
    how(letters)
    failpoint("after-ack")
