"""The loop under all duties, written once: when each is due, what wakes it, what it survives.

Called by `celeriac keeper`. A duty that fails is logged and tried again later; losing the
lead stops the duties, never the election.
"""

import logging
import signal
import sys
from collections.abc import Callable
from typing import Protocol

from setproctitle import setproctitle

from celeriac import clock
from celeriac.broker import Ear, listen, wait_for_news
from celeriac.errors import CeleriacError, LedgerFull, LedgerUnavailable
from celeriac.instance import connect, publisher_of
from celeriac.keeper.dispatcher import Dispatcher
from celeriac.keeper.due import Due
from celeriac.keeper.leader import Leader, LeadLost
from celeriac.keeper.operator import Operator
from celeriac.keeper.pruner import Pruner
from celeriac.keeper.rescuer import Rescuer
from celeriac.keeper.sentry import Sentry
from celeriac.keeper.tally import Tally
from celeriac.settings import Settings

log = logging.getLogger(__name__)

FAILURE_PAUSE_SECONDS = 1.0


class Duty(Protocol):
    """A step that says when it wants to be taken again."""

    def tick(self) -> float:
        """Do the duty once; return the seconds until the next time."""


class Loop:
    """Runs the election and, while leading, the duties."""

    def __init__(self, settings: Settings) -> None:
        self.leader = Leader(connect(settings), settings.leader_seconds)
        self._due, self._operator = Due(self.leader), Operator(self.leader)
        self._show_life = settings.show_life
        self._beat_seconds = min(settings.beat_seconds, settings.leader_seconds / 3)
        self._duties: list[Duty] = [
            self._due,
            Rescuer(self.leader, settings.lease_seconds),
            self._operator,
            Tally(self.leader),
            Pruner(self.leader, settings.job_days, settings.event_days),
            Sentry(self.leader, settings.observed_days),
        ]
        if publisher := publisher_of(self.leader.ledger):
            self._duties.append(Dispatcher(self.leader, publisher, settings.window))
        self._next: dict[Duty, float] = dict.fromkeys(self._duties, 0.0)
        self._beat_at = 0.0
        self._listener = listen(settings.announcements_url, Ear.KEEPER)
        self._stopping = False
        self._troubled = False

    def run(self) -> None:
        """Go round until `stop`, then give up the lead."""
        try:
            while not self._stopping:
                self._wait(self.step())
            self._guard(self.leader.release, "the end")
        finally:
            self._listener.close()

    def stop(self) -> None:
        """End the loop (also from a signal handler)."""
        self._stopping = True
        self._listener.poke()

    def step(self) -> float:
        """Take every step that is due now; return the seconds until the next one."""
        now = clock.monotonic()
        if now >= self._beat_at:
            self._guard(self.leader.tick, "the election")
            self._guard(self._show_life, "The sign of life")
            self._beat_at = now + self._beat_seconds
        wake_at = self._beat_at
        if self.leader.leads:
            for duty, at in self._next.items():
                if now >= at:
                    pause = self._guard(duty.tick, type(duty).__name__)
                    self._next[duty] = clock.monotonic() + (FAILURE_PAUSE_SECONDS if pause is None else pause)
            wake_at = min(wake_at, *self._next.values())
        return max(wake_at - clock.monotonic(), 0)

    def _guard(self, tick: Callable[[], float | None], what: str) -> float | None:
        try:
            pause = tick()
            if self._troubled:
                log.warning("The ledger can be used again.")
                self._troubled = False
            return pause
        except LeadLost:
            pass  # it is told already
        except (LedgerUnavailable, LedgerFull) as error:
            if not self._troubled:  # told once: every duty meets it every second
                log.warning("%s and all else waits: %s", what, error)
            self._troubled = True
        except CeleriacError as error:
            log.warning("%s waits: %s", what, error)
        except Exception:
            log.exception("%s failed and is tried again", what)
        return None

    def _wait(self, seconds: float) -> None:
        if wait_for_news(self._listener, seconds) and any(
            news.due_at is not None or not news for news in self._listener.receive()
        ):
            self._next[self._due] = self._next[self._operator] = 0.0


def run(settings: Settings) -> int:
    """Keep until SIGTERM or SIGINT; return the exit code."""
    setproctitle("celeriac: keeper")
    loop = Loop(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    loop.run()
    sys.stdout.flush()
    return 0
