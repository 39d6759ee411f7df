"""The worker's side of observe mode: Celery's own worker, pools and acknowledgements, and somebody who looks on.

`ObserveStep` gives the main process a `Watch` and its pool a pipe on which children can tell what they
see. What there is to see of an attempt is in `witness.py`. Nothing is claimed here, and nothing here
can fail a job. Next: app/observer.py.
"""

import os
import socket
from dataclasses import replace
from typing import Any

from celery import bootsteps
from celery.concurrency import asynpool
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger

from celeriac import __version__, clock
from celeriac.app.observer import Observer
from celeriac.errors import CannotStart
from celeriac.jobs import Kind, Worker
from celeriac.ledger import Ledger, Sighting, nodes, sight
from celeriac.worker import witness
from celeriac.worker.lease import Lease
from celeriac.worker.pool import FRAME, open_pipe

log = get_logger(__name__)

PROGRESS_SECONDS = 1.0


class Watch:
    """The main process of an observed worker: a node that holds nothing and claims nothing."""

    stopping = False

    def __init__(self, observer: Observer, worker: Any) -> None:
        self.group = observer
        self.id = ""
        self._worker = worker
        self._running: dict[str, int] = {}  # id -> when its execution began
        self._progress: dict[str, Sighting] = {}
        self._progress_at: dict[str, float] = {}
        self._lease = Lease(self, worker.app.settings.beat_seconds)

    @property
    def ledger(self) -> Ledger:
        """The ledger that this worker is entered in."""
        ledger: Ledger = self._worker.app.ledger
        return ledger

    def open(self) -> None:
        """Begin to beat, so that nobody takes what runs here for lost."""
        self.register()
        self._lease.start()

    def register(self) -> None:
        """Enter this worker in the ledger, under a new identity."""
        worker, now = self._worker, clock.micros()
        self.id = f"{worker.hostname}/{os.urandom(4).hex()}"
        queues = tuple(worker.app.amqp.queues.consume_from)
        pool = type(worker.pool).__module__.rpartition(".")[2].replace("thread", "threads")
        self.group.add(
            nodes.register,
            Worker(self.id, worker.hostname, socket.gethostname(), os.getpid(), queues, tuple(sorted(worker.app.tasks)),
                   worker.concurrency, pool, __version__, now, now, None, None),
        )  # fmt: skip

    def frame(self, sighting: Sighting) -> None:
        """Take a sighting, wherever in this worker it was made. Progress is written once a second."""
        id = sighting.id
        if sighting.kind is Kind.PROGRESS:
            self._progress[id] = sighting
            if clock.monotonic() - self._progress_at.get(id, 0) < PROGRESS_SECONDS:
                return
        if (waiting := self._progress.pop(id, None)) is not None:
            self._progress_at[id] = clock.monotonic()
            self.group.add(sight, waiting)
        if sighting.kind is Kind.PROGRESS:
            return
        if sighting.kind is Kind.STARTED and sighting.execution is not None:
            self._running[id] = sighting.execution
            sighting = replace(sighting, worker=self.id)
        elif sighting.state is not None:
            sighting = replace(sighting, execution=sighting.execution or self._running.get(id))
            self._running.pop(id, None)
            self._progress_at.pop(id, None)
        self.group.add(sight, sighting)

    def runs(self, id: str) -> bool:
        """Say whether a job runs here."""
        return id in self._running

    def show_life(self) -> None:
        """Touch the file that probes look at, if there is to be one."""
        self._worker.app.settings.show_life()

    def attend(self) -> None:
        """Do nothing: Celery and its broker see to what is lost, revoked or stuck."""

    def stop(self) -> None:
        """Say that this worker has ended, after the last that its pool had to tell."""
        self.stopping = True
        self._lease.stop()
        self.group.add(nodes.stop, self.id)
        self.group.stop()


class ObserveStep(bootsteps.StartStopStep):
    """Makes the Watch, and pools whose children can tell it what they see."""

    requires = ("celery.worker.components:Pool",)
    watch: Watch | None = None

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        green = worker.pool_cls.__module__.rpartition(".")[2]
        if green in ("gevent", "eventlet"):
            raise ImproperlyConfigured(f"Celeriac cannot observe the {green} pool. Use prefork, threads or solo.")
        try:
            self.watch = Watch(worker.app.observer, worker)
        except CannotStart as error:  # the worker is not ours to stop
            log.error("This worker is not observed. %s", error)
            return
        worker.app.observer.carry = witness.sent
        worker.pool_cls = _observed(worker.pool_cls, self.watch, worker.use_eventloop)
        witness.tell_by(self.watch.frame, self.watch.runs)

    def start(self, worker: Any) -> None:
        """Begin to tell of this worker; its children have been forked."""
        if self.watch is not None:
            self.watch.open()

    def stop(self, worker: Any) -> None:
        """Nothing: the pool stops the watch once its children are joined."""


class Child(asynpool.Worker):
    """A child of an observed prefork pool."""

    def on_loop_start(self, pid: int) -> None:
        """Let what runs here tell the main process what is seen of it."""
        witness.tell_by(open_pipe(self))
        super().on_loop_start(pid)


class ResultHandler(asynpool.ResultHandler):
    """The main process's end of the children's pipes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state_handlers[FRAME] = witness.tell


class AsynPool(asynpool.AsynPool):
    """Celery's prefork pool with a way to tell."""

    Worker = Child
    ResultHandler = ResultHandler


def _observed(pool: type, watch: Watch, evented: bool) -> type:
    """Return a pool like this one, which tells the watch when it has stopped, and listens to its children."""

    def on_stop(self: Any) -> None:
        pool.on_stop(self)  # type: ignore[attr-defined]
        watch.stop()

    body: dict[str, Any] = {"on_stop": on_stop, "__module__": pool.__module__}
    if getattr(pool, "Pool", None) is asynpool.AsynPool and evented:
        body["Pool"] = AsynPool
    elif hasattr(pool, "Pool"):  # of the author's own, or without an event loop, as some brokers need it
        log.warning("The children of this pool cannot be observed: what they run is not recorded. Use -P threads.")
    return type(pool.__name__, (pool,), body)
