"""Works off the operations that people ask for: a cancel or a retry of everything that matches a filter.

Each open operation gets one small step in turn, so that a huge one holds up neither the others nor
who submits. A job that breaks its step is found by ever smaller steps, refused and left behind.
"""

import logging

from celeriac.errors import CeleriacError
from celeriac.keeper.leader import Leader, LeadLost
from celeriac.ledger import operations
from celeriac.ledger.operations import Operation

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
BATCH = 100


class Operator:
    """The duty of working off operations; an announcement of a new one wakes it."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._batch = BATCH

    def tick(self) -> float:
        """Take one step of each open operation; return the seconds until the next, none while there is more."""
        waiting = operations.unfinished(self._leader.ledger)
        for operation in waiting:
            self._step(operation)
        return 0 if waiting else LOOK_SECONDS

    def _step(self, operation: Operation, skip: bool = False) -> None:
        jobs, after = operations.look(self._leader.ledger, operation, self._batch)
        try:
            with self._leader.transaction() as tx:
                operations.step(tx, operation, jobs, after, skip)
            self._batch = min(self._batch * 2, BATCH)
        except (LeadLost, CeleriacError):
            raise
        except Exception:
            if skip or not jobs:
                raise
            if self._batch == 1:
                log.exception("Operation %s cannot %s job %s", operation.id, operation.kind, jobs[0].id)
                self._step(operation, skip=True)
            self._batch = max(self._batch // 4, 1)
