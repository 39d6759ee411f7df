"""Group commit: many moves, one transaction, one fsync, one announcement.

Whoever writes hands a move and its item to the Group of its process and is called back
after the commit; submits of a web process, claims and ends of a worker all go this way.
While one commit is under way the next batch gathers, so a lone move never waits; under
load the batch lingers a few milliseconds. One bad item never spoils the others: a batch
that fails for its data is bisected until the culprit stands alone.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias

from celeriac.errors import LedgerBusy, LedgerFull, LedgerLocked, LedgerUnavailable
from celeriac.ledger.store import Ledger, Move, again_after

log = logging.getLogger(__name__)

Callback: TypeAlias = Callable[[Any], None]
Entry: TypeAlias = tuple[Move[Any, Any], Any, Callback]

LINGER_SECONDS = 0.008
BUSY_PER_SECOND = 300
BATCH_MAX = 1000
PUT_OFF_SECONDS = 1.0
PUT_OFF = object()  # stands for the answer of a move that is tried again later


class Group:
    """A thread that commits what others hand it.

    `deliver` runs the callbacks of a batch in the caller's world (an event loop, a hub); each
    callback gets the move's answer or an exception. With `patient`, a batch that cannot be
    written now is kept and tried again for ever: what workers report must not be lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        order: Sequence[Move[Any, Any]],
        deliver: Callable[[Callable[[], None]], None] | None = None,
        patient: bool = False,
    ) -> None:
        self.ledger = ledger
        self.commits = 0
        self.moves = 0
        self._order = {move: rank for rank, move in enumerate(order)}
        self._deliver = deliver or (lambda run: run())
        self._patient = patient
        self._entries: deque[Entry] = deque()
        self._wake = threading.Condition()
        self._urgent = False
        self._late: list[Entry] = []
        self._late_at = 0.0
        self._stopping = False
        self._written: deque[tuple[float, int]] = deque(maxlen=16)
        self._thread = threading.Thread(target=self._run, name="celeriac-group", daemon=True)
        self._thread.start()

    def add(self, move: Move[Any, Any], item: Any, callback: Callback, urgent: bool = True) -> None:
        """Hand over a move; `callback` is called once with its answer or an exception, after the commit.

        Moves that are not urgent may wait a few milliseconds for company when there is much to do.
        """
        with self._wake:
            if self._stopping:
                raise LedgerUnavailable("This process is stopping and takes no more work.")
            idle = not self._entries
            self._entries.append((move, item, callback))
            self._urgent |= urgent
            if idle or urgent:  # a writer that lingers need not wake for each: 13 % of a worker's CPU
                self._wake.notify()

    def do(self, move: Move[Any, Any], item: Any) -> Any:
        """Make a move and wait for its commit; return the answer or raise the error."""
        future: Future[Any] = Future()

        def settle(answer: Any) -> None:
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.add(move, item, settle)
        return future.result()

    def withdraw(self, callbacks: Collection[Callback]) -> list[Callback]:
        """Take back what has not been begun with, by its callbacks; return those, which are not called any more."""
        if not callbacks:
            return []
        with self._wake:
            found = [entry for entry in self._entries if entry[2] in callbacks]
            if found:
                self._entries = deque(entry for entry in self._entries if entry[2] not in callbacks)
        return [callback for _, _, callback in found]

    def stop(self, timeout: float = 30) -> None:
        """Commit what is left and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._next_batch():
            answers = self._write(batch)
            if PUT_OFF in answers:
                batch, answers = self._put_off(batch, answers)
            self._written.append((time.monotonic(), len(batch)))
            try:
                self._deliver(partial(_call_back, batch, answers))
            except Exception:  # the thread must go on, or nobody is ever answered again
                log.exception("The answers of %d moves could not be delivered", len(batch))

    def _next_batch(self) -> list[Entry]:
        with self._wake:
            while not (self._entries or self._stopping or self._is_late_due()):
                self._wake.wait(PUT_OFF_SECONDS if self._late else None)
            if self._stopping or self._is_late_due():
                self._entries.extend(self._late)
                self._late = []
            if not self._urgent and not self._stopping and self._busy():
                deadline = time.monotonic() + LINGER_SECONDS
                while not self._urgent and not self._stopping and (left := deadline - time.monotonic()) > 0:
                    self._wake.wait(left)
            self._urgent = False
            return [self._entries.popleft() for _ in range(min(len(self._entries), BATCH_MAX))]

    def _put_off(self, batch: list[Entry], answers: list[Any]) -> tuple[list[Entry], list[Any]]:
        """Keep what somebody else's locks hold up for later, and return the rest: it must not wait for a stranger."""
        self._late_at = time.monotonic() + PUT_OFF_SECONDS
        self._late += [entry for entry, answer in zip(batch, answers, strict=True) if answer is PUT_OFF]
        log.warning("%d moves wait for rows that another open transaction holds.", len(self._late))
        done = [(entry, answer) for entry, answer in zip(batch, answers, strict=True) if answer is not PUT_OFF]
        return [entry for entry, _ in done], [answer for _, answer in done]

    def _is_late_due(self) -> bool:
        return bool(self._late) and time.monotonic() >= self._late_at

    def _busy(self) -> bool:
        """Say whether moves come so fast that waiting for company pays."""
        if not self._written:
            return False
        since = time.monotonic() - self._written[0][0]
        return sum(moves for _, moves in self._written) > BUSY_PER_SECOND * max(since, 0.001)

    def _write(self, batch: list[Entry]) -> list[Any]:
        pause = 0.05
        again = again_after()
        while True:
            try:
                return self._commit(batch)
            except LedgerLocked as error:
                if len(batch) == 1:
                    return [PUT_OFF if self._patient and not self._stopping else error]
                return self._write_halves(batch)
            except (LedgerUnavailable, LedgerFull) as error:
                if isinstance(error, LedgerBusy) and (soon := next(again, None)) is not None:
                    time.sleep(soon)
                    continue
                if not self._patient or self._stopping:
                    return [error] * len(batch)
                log.warning("%s Trying again in %.1f s; %d moves wait.", error, pause, len(batch))
                time.sleep(pause)
                pause = min(pause * 2, 2)
            except Exception as error:  # the thread must go on, whatever is wrong with an item
                if len(batch) == 1:
                    log.exception("A move could not be written: %s", batch[0][0].__name__)
                    return [error]
                return self._write_halves(batch)

    def _write_halves(self, batch: list[Entry]) -> list[Any]:
        middle = len(batch) // 2
        return self._write(batch[:middle]) + self._write(batch[middle:])

    def _commit(self, batch: list[Entry]) -> list[Any]:
        """Make all moves of a batch in one transaction, kind by kind in the order of a job's life."""
        kinds: dict[Move[Any, Any], list[int]] = {}
        for place, (move, _, _) in enumerate(batch):
            kinds.setdefault(move, []).append(place)
        answers: list[Any] = [None] * len(batch)
        with self.ledger.transaction() as transaction:
            for move in sorted(kinds, key=self._order.__getitem__):
                places = kinds[move]
                for place, answer in zip(places, move(transaction, [batch[i][1] for i in places]), strict=True):
                    answers[place] = answer
        self.commits += 1
        self.moves += len(batch)
        return answers


def _call_back(batch: list[Entry], answers: list[Any]) -> None:
    for (_, _, callback), answer in zip(batch, answers, strict=True):
        try:
            callback(answer)
        except Exception:
            log.exception("A callback after a commit failed")
