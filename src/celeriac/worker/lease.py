"""The lease: a thread that raises this node's counter, so that nobody takes its jobs.

With each beat the node looks after itself (`Node.attend`). A node that learns it was given up as dead (it slept, or
was cut off) takes a new identity; what its old one still runs is fenced.
"""

import logging
import threading
from typing import Any, Protocol

from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.ledger import Ledger, nodes

log = logging.getLogger(__name__)


class Beating(Protocol):
    """A worker that is entered in the ledger: a node that claims, or one that is only observed."""

    id: str
    stopping: bool

    @property
    def group(self) -> Any:
        """What makes its moves."""

    @property
    def ledger(self) -> Ledger:
        """Where it is entered."""

    def register(self) -> None:
        """Take a new identity."""

    def show_life(self) -> None:
        """Touch the file that probes look at, if there is to be one; also while the ledger is away."""

    def attend(self) -> None:
        """Look for what nobody has told of; raises what the ledger raises."""


class Lease:
    """Beats every so many seconds until stopped."""

    def __init__(self, node: Beating, seconds: float) -> None:
        self._node = node
        self._seconds = seconds
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
        node.show_life()

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
        node.attend()

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
