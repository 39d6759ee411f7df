"""Where the node joins Celery's worker: one bootstep of the worker, one of its consumer.

Named by path in `app/application.py`, so that plain `celery worker` gets them too.
"""

from typing import Any

from celery import bootsteps, signals
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger

from celeriac.worker import node
from celeriac.worker.pool import Pool, title_children

log = get_logger(__name__)

REQUEST = "celeriac.worker.request:LedgerRequest"


class LedgerStep(bootsteps.StartStopStep):
    """Makes the node, after the pool has forked its children."""

    requires = ("celery.worker.components:Hub", "celery.worker.components:Pool")

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        if not issubclass(worker.pool_cls, Pool):
            raise ImproperlyConfigured("Celeriac runs the prefork pool only in this version. Leave -P out.")
        for task in worker.app.tasks.values():
            if task.rate_limit:
                log.warning("The rate limit of %s is not kept in this version.", task.name)
        # Every registered task, whatever its base class, is followed by our request.
        for task in worker.app.tasks.values():
            task.Request = REQUEST

    def start(self, worker: Any) -> None:
        """Enter the ledger."""
        app = worker.app
        queues = list(app.amqp.queues.consume_from)
        tasks = list(app.tasks)
        made = node.Node(app.ledger, app.settings, worker.hostname, queues, tasks)
        made.open(getattr(worker, "hub", None), worker.concurrency, "prefork")
        node.set_current(made)

    def stop(self, worker: Any) -> None:
        """Nothing: the pool stops the node once its children are joined."""


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


@signals.worker_process_init.connect
def _on_child(sender: str | None = None, **_: Any) -> None:
    node.set_current(None)
    title_children(sender or "")
