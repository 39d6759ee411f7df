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

if TYPE_CHECKING:
    from celeriac.worker.node import Node

log = logging.getLogger(__name__)


class Lease:
    """Beats every so many seconds until stopped."""

    def __init__(self, node: "Node", seconds: float) -> None:
        self._node = node
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-lease", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()

    def tick(self) -> None:
        """Raise the counter once, through the node's group: a commit that is under way carries it."""
        node, id = self._node, self._node.id

        def beaten(alive: object) -> None:
            if alive is False and node.id == id and not node.stopping:
                log.warning("%s was given up as dead; it goes on under a new identity.", id)
                node.register()

        node.group.add(nodes.beat, id, beaten)
        node.cancels()
        node.strays()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.tick()
            except (LedgerUnavailable, LedgerFull) as error:
                log.warning("%s", error)
            except Exception:  # without its beats the node would be given up as dead
                log.exception("A beat failed; the next one follows")
