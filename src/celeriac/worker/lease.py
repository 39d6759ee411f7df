"""The lease: a thread that raises this node's counter, so that nobody takes its jobs.

It also looks for cancels whose announcement was lost, or that a busy hub cannot hear (a solo pool runs
its tasks there), and for jobs that a claim took and nobody learned of. A node that learns it was given
up as dead (it slept, or was cut off) takes a new identity; what its old one still runs is fenced.
"""

import logging
import threading
from typing import TYPE_CHECKING

from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.ledger import nodes
from celeriac.worker.watch import Watch

if TYPE_CHECKING:
    from celeriac.worker.node import Node

log = logging.getLogger(__name__)


class Lease:
    """Beats every so many seconds until stopped."""

    def __init__(self, node: "Node", seconds: float) -> None:
        self._node = node
        self._seconds = seconds
        self._watch = Watch(node, node.settings.stuck_seconds, node.settings.stuck_exit_seconds)
        self._answered = True  # whether the group has answered the last beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-lease", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()

    def tick(self) -> None:
        """Raise the counter once, through the node's group: a commit that is under way carries it.

        When something holds up the group, as a row that somebody else has locked, the counter is raised past it.
        """
        node, id = self._node, self._node.id
        if not self._watch.stuck:
            node.settings.show_life()

        def beaten(alive: object) -> None:
            self._answered = True
            if alive is False and node.id == id and not node.stopping:
                log.warning("%s was given up as dead; it goes on under a new identity.", id)
                node.register()

        if self._answered:
            self._answered = False
            node.group.add(nodes.beat, id, beaten)
        elif node.ledger.do(nodes.beat, id) is False:
            beaten(False)
        node.cancels()
        node.strays()
        self._watch.look()

    def _run(self) -> None:
        troubled = False
        while not self._stop.wait(self._seconds):
            try:
                self.tick()
                troubled = False
            except (LedgerUnavailable, LedgerFull) as error:
                log.log(logging.DEBUG if troubled else logging.WARNING, "%s", error)
                troubled = True
            except Exception:  # without its beats the node would be given up as dead
                log.exception("A beat failed; the next one follows")
