"""A worker node: what it holds, what it may claim, and everything it writes.

One per Celery worker, in its main process. It claims no more than its pool can start at once
(plus, for very short jobs, what the pool ends while a claim is under way), follows each job
from claim to outcome, and hands all of it to one Group, so that claims, starts and ends of
many jobs share a commit. Stopping gives back what has not started.
"""

import logging
import os
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from celeriac import __version__, clock
from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.failpoints import failpoint
from celeriac.jobs import Claimed, ClaimRequest, ErrorCode, Failure, Kind, Note, Outcome, Start, Worker
from celeriac.ledger import ORDER, Group, Ledger, claim, finish, nodes, note, read, start
from celeriac.ledger.sql import as_json
from celeriac.settings import Settings
from celeriac.states import State
from celeriac.worker.lease import Lease

log = logging.getLogger(__name__)

# A start is written with its outcome when that comes within this time, alone otherwise.
START_SECONDS = 0.05
PROGRESS_SECONDS = 1.0
# How much work, at the pool's pace, a node may hold beyond what runs.
BUFFER_SECONDS = 0.03
BUFFER_PER_SLOT = 32


class Node:
    """The main process's side of a worker. Its methods run in the hub's thread unless they say otherwise."""

    def __init__(
        self, ledger: Ledger, settings: Settings, name: str, queues: Sequence[str], tasks: Sequence[str]
    ) -> None:
        self.ledger = ledger
        self.settings = settings
        self.name = name
        self.queues = frozenset(queues)
        self.slots = Path(tempfile.mkdtemp(prefix="celeriac-"))
        self.held: dict[int, Any] = {}  # job key -> Claimed, then its LedgerRequest
        self.stopping = False
        self._order = list(queues)
        self._tasks = tuple(sorted(tasks))
        self._known = as_json(self._tasks)
        self._concurrency = 1
        self._hub: Any = None
        self._transport: Any = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._claiming = False
        self._again = False
        self._runtime: float | None = None
        self._starts: dict[int, Start] = {}
        self._progress: dict[int, Note] = {}
        self._progress_at: dict[int, float] = {}
        self.group = Group(ledger, ORDER, self._deliver, patient=True)
        self.id = ""
        self._lease = Lease(self, settings.beat_seconds)

    def open(self, hub: Any, concurrency: int, pool: str) -> None:
        """Enter the node in the ledger and begin to beat."""
        self._hub, self._concurrency, self._pool = hub, concurrency, pool
        self.register()
        self._lease.start()

    def register(self) -> None:
        """Take a new identity: at the start, and after having been given up as dead (any thread)."""
        id = f"{self.name}/{os.urandom(4).hex()}"
        now = clock.micros()
        self.ledger.do(
            nodes.register,
            Worker(id, self.name, socket.gethostname(), os.getpid(), tuple(self._order), self._tasks,
                   self._concurrency, self._pool, __version__, now, now, None, None),
        )  # fmt: skip
        self.id = id

    # Claiming

    def attach(self, transport: Any) -> None:
        """Begin to feed a connection of Celery's."""
        self._transport = transport
        transport.source = self

    def detach(self) -> None:
        """Stop feeding, and give back what was not handed to the pool."""
        if self._transport is not None:
            self._transport.source = None
            self._transport = None
        for request in list(self.held.values()):
            if isinstance(request, Claimed) or request.started_at is None:  # the pool drops what has not begun
                self.give_back(request)

    def room(self) -> int:
        """Return how many more jobs the node may hold."""
        buffer = 0
        if self._runtime is not None:
            buffer = int(self._concurrency * min(BUFFER_PER_SLOT, BUFFER_SECONDS / max(self._runtime, 1e-5)))
        return self._concurrency + buffer - len(self.held)

    def fetch(self) -> None:
        """Claim what there is room for; while one claim is under way, remember to claim again."""
        if self._claiming or self.stopping or self._transport is None:
            self._again = True
            return
        self._again = False
        room = self.room()
        if room <= 0:
            return
        self._claiming = True
        self._order.append(self._order.pop(0))  # no queue is always asked last
        queues = tuple(queue for queue in self._order if self._transport.consumes(queue))
        request = ClaimRequest(self.id, queues, self._known, room)
        urgent = len(self.held) < self._concurrency
        self.group.add(claim, request, partial(self._claimed, room), urgent)

    def _claimed(self, room: int, answer: list[Claimed] | Exception) -> None:
        self._claiming = False
        if isinstance(answer, Exception):
            log.error("A claim failed: %s", answer)
            return
        failpoint("main-claimed")
        for job in answer:
            self.held[job.key] = job
            if self.stopping or self._transport is None or not self._transport.consumes(job.queue):
                self.give_back(job)
                continue
            try:
                self._transport.deliver(job)
            except Exception as error:
                log.exception("Job %s cannot be handed to its task", job.id)
                self._undeliverable(job, f"{type(error).__name__}: {error}")
                continue
            if self.held.get(job.key) is job:  # no request took it over
                self._undeliverable(job, "Its message cannot be read.")
        if self._again or len(answer) == room:
            self.fetch()

    def look(self) -> None:
        """Look for work whose announcement was lost; takes no turn to write when there is none."""
        if self._claiming or self.room() <= 0:
            return
        try:
            if read.any_queued(self.ledger, list(self.queues)):
                self.fetch()
        except (LedgerUnavailable, LedgerFull) as error:
            log.warning("%s", error)

    # Following

    def adopt(self, request: Any) -> None:
        """Take over a claimed job as Celery's request."""
        self.held[request.key] = request

    def started(self, request: Any) -> None:
        """Note that user code runs; written soon, or together with the outcome if that comes first."""
        if not self._starts:
            self._later(START_SECONDS, self._write_starts)
        self._starts[request.key] = Start(request.key, request.attempt, request.started_at)

    def _write_starts(self) -> None:
        starts, self._starts = self._starts, {}
        for item in starts.values():
            self.group.add(start, item, _ignore, urgent=False)

    def frame(self, frame: tuple[int, int, int, str, dict[str, Any]]) -> None:
        """Take a line that a child reported. Progress is written once a second, the rest as it comes."""
        key, attempt, at, kind, data = frame
        if key in self._starts:  # in its history, too, a job starts before it speaks
            self._write_starts()
        item = Note(key, attempt, at, Kind(kind), data)
        if item.kind is not Kind.PROGRESS:
            self.group.add(note, item, _ignore, urgent=False)
            return
        waiting = key in self._progress
        self._progress[key] = item
        if not waiting:
            wait = self._progress_at.get(key, 0) + PROGRESS_SECONDS - clock.monotonic()
            if wait <= 0:
                self._write_progress(key)
            else:
                self._later(wait, partial(self._write_progress, key))

    def _write_progress(self, key: int) -> None:
        item = self._progress.pop(key, None)
        if item is not None and key in self.held:
            self._progress_at[key] = clock.monotonic()
            self.group.add(note, item, _ignore, urgent=False)

    # Ending

    def end(self, request: Any, outcome: Outcome, runtime: float | None = None) -> None:
        """Hand over how an attempt ended; a second report of the same attempt is dropped."""
        key: int = request.key
        if self.held.get(key) is not request:
            return
        self._write_progress(key)
        del self.held[key]
        self._starts.pop(key, None)
        self._progress_at.pop(key, None)
        if runtime is not None:
            self._runtime = runtime if self._runtime is None else 0.9 * self._runtime + 0.1 * runtime
        self.group.add(finish, outcome, partial(self._ended, outcome), urgent=not self.held)
        failpoint("main-after-outcome")
        self.fetch()

    def _ended(self, outcome: Outcome, answer: Any) -> None:
        if isinstance(answer, Exception):
            log.error("The outcome of job %s cannot be stored: %s", outcome.id, answer)
            failure = Failure(ErrorCode.NOT_STORABLE, type(answer).__name__, "What the task returned cannot be stored.")
            lost = Outcome(
                outcome.key, outcome.id, outcome.attempt, outcome.task, outcome.queue, State.FAILED, outcome.at,
                Kind.FAILED, started_at=outcome.started_at, failure=failure,
            )  # fmt: skip
            self.group.add(finish, lost, _ignore)
        elif not answer:
            log.warning(
                "Job %s was given to another worker meanwhile; attempt %d is void.", outcome.id, outcome.attempt
            )

    def give_back(self, job: Any) -> None:
        """Return a job that has not started to its queue."""
        outcome = Outcome(
            job.key, job.id, job.attempt, job.task if isinstance(job, Claimed) else job.task_name_claimed, job.queue,
            State.QUEUED, clock.micros(), Kind.GIVEN_BACK, data={"attempt": job.attempt, "worker": self.id},
        )  # fmt: skip
        self.end(job, outcome)

    def _undeliverable(self, job: Claimed, why: str) -> None:
        failure = Failure(ErrorCode.RAISED, "InvalidMessage", why)
        data = {"code": ErrorCode.RAISED, "message": why}
        self.end(job, Outcome(
            job.key, job.id, job.attempt, job.task, job.queue, State.FAILED, clock.micros(), Kind.FAILED, data,
            failure=failure,
        ))  # fmt: skip

    def cancels(self) -> None:
        """Begin to cancel the jobs of this node that somebody asked to cancel."""
        try:
            asked = read.cancels(self.ledger, self.id)
        except (LedgerUnavailable, LedgerFull) as error:
            log.warning("%s", error)
            return
        for key, attempt in asked:
            request = self.held.get(key)
            if request is not None and not isinstance(request, Claimed) and request.attempt == attempt:
                request.begin_cancel()

    def stop(self, timeout: float = 20) -> None:
        """Write everything, give back the rest, and leave the ledger (after the pool has been joined)."""
        self.stopping = True
        self._drain()
        for request in list(self.held.values()):
            self.give_back(request)
        self._lease.stop()
        self.group.stop(timeout)
        self._drain()
        try:
            self.ledger.do(nodes.stop, self.id)
        except (LedgerUnavailable, LedgerFull) as error:
            log.warning("The ledger cannot be told that this worker has stopped: %s", error)
        shutil.rmtree(self.slots, ignore_errors=True)

    # The group's thread and the hub's

    def _deliver(self, run: Callable[[], None]) -> None:
        """Run callbacks of a commit in the hub's thread (called by the group's)."""
        self._inbox.append(run)
        if self.stopping or self._hub is None:
            self._drain()
        else:
            self._hub.call_soon(self._drain)

    def _drain(self) -> None:
        while self._inbox:
            run = self._inbox.popleft()
            try:
                run()
            except Exception:  # Celery would end the worker, or take it for a lost connection
                log.exception("A callback in the hub's thread failed")

    def call_soon(self, action: Callable[[], None]) -> None:
        """Run something in the hub's thread (any thread)."""
        self._deliver(action)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if self._hub is not None:
            self._hub.call_later(seconds, action)
        else:
            timer = threading.Timer(seconds, action)
            timer.daemon = True
            timer.start()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run something after a while."""
        self._later(seconds, action)


def _ignore(_: Any) -> None:
    pass


# The node of this process; Celery builds requests and children without a way to pass it.
current_node: Node | None = None


def set_current(node: Node | None) -> None:
    """Make a node this process's."""
    global current_node
    current_node = node


def this() -> Node:
    """Return this process's node."""
    if current_node is None:
        raise RuntimeError("no worker node runs in this process")
    return current_node
