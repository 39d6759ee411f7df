"""The watch: sees that this node does no work though there is some, says so, and in the end has it started anew.

Called by the lease's thread after each beat, so it also sees a hub that hangs. Only time counts in which the
ledger could be read. Queues that are paused, tasks that are unknown here or out of turn, and slots that are all taken
are no alarm.
"""

import logging
import os
import threading
from typing import TYPE_CHECKING

import msgspec
from celery.worker import state as worker_state

from celeriac import clock
from celeriac.ledger import nodes

if TYPE_CHECKING:
    from celeriac.worker.node import Node

log = logging.getLogger(__name__)

LOOKS = 6  # so many in a row, at least, before the alarm
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: started anew it may work
GRACE_SECONDS = 5.0


class Watch:
    """Looks at one node now and then."""

    def __init__(self, node: "Node", seconds: float, exit_seconds: float) -> None:
        self._node = node
        self._seconds, self._exit_seconds = seconds, exit_seconds
        self._looked_at: float | None = None
        self._silent = 0.0  # how long there has been work, and none was done
        self._progress = -1
        self._heard = self._asked = 0  # of the hub
        self.stuck = False

    def look(self) -> None:
        """Take a look if it is time for one. Raises what the ledger raises; that time does not count."""
        now, pause = clock.monotonic(), self._seconds / LOOKS
        if not self._seconds or (self._looked_at is not None and now - self._looked_at < pause):
            return
        before, self._looked_at = self._looked_at, None  # of a look that fails nothing is remembered
        why = self._why()
        self._looked_at = clock.monotonic()
        if why is None or before is None:
            self._silent = 0.0
        else:
            self._silent += min(now - before, 2 * pause)
        self._judge(why)

    def _why(self) -> str | None:
        """Say what is wrong at the moment, if anything is."""
        node = self._node
        progress, before = node.progress, self._progress
        heard = self._heard == self._asked
        self._progress = progress
        if heard:
            self._asked += 1
            node.inbox.put(self._answer)
        tasks = [*msgspec.json.decode(node.pace.free), *node.pace.turns()]
        may = nodes.any_claimable(node.ledger, node.queues, tasks)
        if node.stopping or progress != before:
            return None
        if not heard and node.history.patient:
            return "its event loop does not answer"
        if node.waits_for_pool():
            return "its pool does not begin with the jobs it was given"
        return "it claims nothing, though there are jobs that it could run" if may and node.room() > 0 else None

    def _answer(self) -> None:
        self._heard = self._asked

    def _judge(self, why: str | None) -> None:
        stuck = self._silent >= self._seconds
        if stuck != self.stuck:
            self.stuck = stuck
            log.error("This worker is stuck: %s.", why) if stuck else log.warning("This worker is not stuck any more.")
            self._node.ledger.do(nodes.judge, (self._node.id, clock.micros() if stuck else None))
        if self._exit_seconds and self._silent >= self._exit_seconds:
            log.critical("This worker has been stuck for %.0f s and ends, to be started anew.", self._silent)
            self._end()

    def _end(self) -> None:
        """End in order, or at once if that takes too long."""
        worker_state.should_stop = EXIT_CODE
        timer = threading.Timer(self._node.settings.shutdown_seconds + GRACE_SECONDS, os._exit, [EXIT_CODE])
        timer.daemon = True
        timer.start()
        self._exit_seconds = 0
