"""Where the node joins Celery's worker: one bootstep of the worker, one of its consumer.

Named by path in `app/application.py`, so that plain `celery worker` gets them too.
"""

import logging
from typing import Any

from celery import bootsteps

from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.worker import evidence, node, remote, strategy
from celeriac.worker.pool import ours

log = logging.getLogger(__name__)


class LedgerStep(bootsteps.StartStopStep):
    """Makes the node, after the pool has forked its children."""

    requires = ("celery.worker.components:Hub", "celery.worker.components:Pool")

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        worker.pool_cls = ours(worker.pool_cls)
        remote.register()
        evidence.listen(worker.app.settings.redact)
        for task in worker.app.tasks.values():
            strategy.bind(task)

    def start(self, worker: Any) -> None:
        """Enter the ledger, or end the worker with a sentence: whoever supervises it starts it again."""
        app = worker.app
        made = node.Node(worker, app.ledger, app.settings)
        node.set_current(made)
        try:
            made.open()
        except (LedgerUnavailable, LedgerFull) as error:
            log.critical("%s", error)
            raise SystemExit(2) from None

    def stop(self, worker: Any) -> None:
        """Nothing: the pool stops the node once its attempts have ended."""


class ClaimStep(bootsteps.StartStopStep):
    """Feeds the consumer's connection while it lasts."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Begin to claim."""
        node.this().attach(consumer.connection.transport)

    def stop(self, consumer: Any) -> None:
        """Claim no more, and give back what has not reached the pool."""
        if node.current_node is not None:
            node.current_node.detach()
