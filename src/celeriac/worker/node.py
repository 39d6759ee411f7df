"""A worker node: what it holds, what it may claim, and how each job it held ended.

One per Celery worker, in its main process. It claims no more than its pool can start at once
(plus, for very short jobs, what the pool ends while a claim is under way), follows each job
from claim to outcome, and hands all of it to one Group, so that claims, starts and ends of
many jobs share a commit. Stopping gives back what has not started. Next: request.py.
"""

import logging
import os
import socket
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac import __version__, clock
from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.failpoints import failpoint
from celeriac.jobs import Claimed, ClaimRequest, ErrorCode, Failure, Kind, Outcome, Start, Worker
from celeriac.ledger import ORDER, Group, Ledger, claim, finish, nodes, read
from celeriac.settings import Settings
from celeriac.states import State
from celeriac.worker.hints import Hints, Kept
from celeriac.worker.history import Frame, History
from celeriac.worker.inbox import Inbox
from celeriac.worker.lease import Lease
from celeriac.worker.pace import Pace
from celeriac.worker.slots import Slots
from celeriac.worker.watch import Watch

if TYPE_CHECKING:
    from celeriac.worker.request import LedgerRequest

log = logging.getLogger(__name__)

# How much work, at the pool's pace, a node may hold beyond what runs.
BUFFER_SECONDS = 0.03
BUFFER_PER_SLOT = 32
# How often a node that is woken by a broker looks for itself.
WOKEN_LOOK_SECONDS = 5.0


class Node:
    """The main process's side of a worker. Its methods run in the hub's thread unless they say otherwise."""

    def __init__(self, worker: Any, ledger: Ledger, settings: Settings) -> None:
        self.ledger = ledger
        self.settings = settings
        self.name: str = worker.hostname
        self._slots = Slots()
        self.slots = self._slots.folder
        self.held: dict[int, Claimed] = {}  # by job key
        self.running: dict[int, LedgerRequest] = {}  # those of them that Celery has taken over
        self.cancelled: frozenset[tuple[int, int]] = frozenset()  # (key, attempt) that somebody asked to cancel
        self.stopping = False
        self.sated = True  # the latest claim came back full: there may be more
        self.progress = 0  # jobs claimed and ended so far
        self.id = ""
        self.inbox = Inbox(worker.hub)
        self.group = Group(ledger, ORDER, self.inbox.put, patient=True)
        self.history = History(self.group, self.inbox)
        self.pace = Pace(worker.app.tasks, list(worker.app.tasks))
        self._worker = worker
        self._queues = worker.app.amqp.queues
        self._tasks = tuple(sorted(worker.app.tasks))
        self._transport: Any = None
        self._claiming = False
        self._again = False
        self._looked_at = 0.0
        self._turn = 0  # of the latest claim
        self._served: dict[str, str] = {}  # queue -> the owner who had the last turn
        self._owed: set[tuple[int, int]] = set()  # (key, attempt) whose outcome is on its way to the ledger
        self._strays: dict[tuple[int, int], int] = {}  # (key, attempt) that nobody held at the last look: turn then
        self._runtime: float | None = None
        self._shape: nodes.Shape | None = None
        self._watch = Watch(self, settings.stuck_seconds, settings.stuck_exit_seconds)
        self._lease = Lease(self, settings.beat_seconds)
        self.hints = Hints(self, worker.app)

    @property
    def queues(self) -> frozenset[str]:
        """The queues it claims from; remote control may change them. Broadcasts come by mail instead."""
        return frozenset(name for name, queue in self._queues.consume_from.items() if queue.exchange.type != "fanout")

    @property
    def capacity(self) -> int:
        """How many jobs its pool can run at once; with `--autoscale` as many as it may grow to."""
        scaler = getattr(self._worker, "autoscaler", None)
        return int(scaler.max_concurrency if scaler else self._worker.pool.num_processes)

    def open(self) -> None:
        """Enter the node in the ledger and begin to beat."""
        self.history.patient = not self._worker.pool.blocks
        self.register()
        self._lease.start()

    def register(self) -> None:
        """Take a new identity: at the start, and after having been given up as dead."""
        id = f"{self.name}/{os.urandom(4).hex()}"
        now = clock.micros()
        self.ledger.do(
            nodes.register,
            Worker(id, self.name, socket.gethostname(), os.getpid(), tuple(sorted(self.queues)), self._tasks,
                   self.capacity, self._worker.pool.word, __version__, now, now, None, None),
        )  # fmt: skip
        self.id = id
        self._shape = nodes.Shape(id, tuple(sorted(self.queues)), self.capacity)

    def revise(self) -> None:
        """Tell the ledger of other queues or another size, if they have changed."""
        shape = nodes.Shape(self.id, tuple(sorted(self.queues)), self.capacity)
        if shape != self._shape:
            self._shape = shape
            self.group.add(nodes.revise, shape, _ignore, urgent=False)

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
        self.hints.follow(())
        self._give_back_unstarted()

    def room(self) -> int:
        """Return how many more jobs the node may hold."""
        buffer = 0
        capacity = self.capacity
        if self._runtime is not None and self.history.patient:
            buffer = int(capacity * min(BUFFER_PER_SLOT, BUFFER_SECONDS / max(self._runtime, 1e-5)))
        return capacity + buffer - len(self.held)

    def waits_for_pool(self) -> bool:
        """Say whether it has jobs and none has begun (any thread)."""
        return bool(self.held) and all(request.started_at is None for request in list(self.running.values()))

    def fetch(self) -> None:
        """Claim what there is room for; while a claim is under way, remember to claim again."""
        if self._claiming or self.stopping or self._transport is None:
            self._again = True
            return
        self._again, room = False, self.room()
        if room <= 0:
            self.sated = True  # room may have shrunk: whoever leaves a slot asks again
            self.hints.unanswered()
            return
        queues = sorted(self._consumed())
        self._turn += 1
        turn = self._turn % len(queues) if queues else 0
        queues = queues[turn:] + queues[:turn]  # no queue is always asked last
        request = ClaimRequest(self.id, tuple(queues), self.pace.free, room, self.pace.turns(), dict(self._served))
        self._claiming = True
        self.group.add(
            claim, request, partial(self._claimed, room, self.hints.kept()), urgent=len(self.held) < self.capacity
        )

    def _claimed(self, room: int, hints: list[Kept], answer: list[Claimed] | Exception) -> None:
        self._claiming = False
        if isinstance(answer, Exception):
            log.error("A claim failed: %s", answer)
            return
        failpoint("main-claimed")
        self.progress += len(answer)
        for job in answer:
            self.held[job.key] = job
            self._served[job.queue] = job.owner
            wait = self.pace.spend(job.task)
            if wait is not None:
                self.inbox.later(wait, self.fetch)
        for job in answer:
            self._hand_over(job)
        self.sated = len(answer) == room
        if self.sated:
            self.hints.unanswered()
        else:
            self.hints.answered(hints, answer)
        if self._again or self.sated:
            self.fetch()

    def _hand_over(self, job: Claimed) -> None:
        if self.stopping or self._transport is None or not self._transport.consumes(job.queue):
            self.give_back(job)
            return
        try:
            self._transport.deliver(job)
        except Exception as error:
            log.exception("Job %s cannot be handed to its task", job.id)
            self._undeliverable(job, f"{type(error).__name__}: {error}")
            return
        if self.held.get(job.key) is job and job.key not in self.running:
            self._undeliverable(job, "Its message cannot be read.")

    def _consumed(self) -> list[str]:
        """Return the queues it may claim from now."""
        return [] if self._transport is None else [q for q in self.queues if self._transport.consumes(q)]

    def look(self) -> None:
        """Look for work whose announcement was lost; takes no turn to write when there is none."""
        self.revise()
        self.hints.follow(self._consumed())
        waiting, woken = self.hints.tick(), self.hints.up and clock.monotonic() - self._looked_at < WOKEN_LOOK_SECONDS
        if self._claiming or self.room() <= 0 or (woken and not waiting):
            return
        self._looked_at = clock.monotonic()
        try:
            if waiting or read.any_queued(self.ledger, list(self.queues)):
                self.fetch()
        except (LedgerUnavailable, LedgerFull) as error:
            log.warning("%s", error)

    # Following

    def adopt(self, key: int, request: "LedgerRequest") -> Claimed:
        """Let Celery's request take over a claimed job."""
        self.running[key] = request
        return self.held[key]

    def holds(self, job: Claimed) -> bool:
        """Say whether the node still has this attempt of a job (any thread)."""
        return self.held.get(job.key) is job

    def started(self, job: Claimed, at: int) -> None:
        """Note that user code of a job runs."""
        if self.holds(job):
            self.history.started(Start(job.key, job.attempt, at))

    def frame(self, frame: Frame) -> None:
        """Take a line that an attempt reported."""
        if frame[0] in self.held:
            self.history.report(frame)

    def end(self, job: Claimed, outcome: Outcome, runtime: float | None = None) -> None:
        """Hand over how an attempt ended; a second report of the same attempt is dropped."""
        if not self.holds(job):
            return
        self.history.close(job.key)
        self.progress += 1
        del self.held[job.key]
        self.running.pop(job.key, None)
        if runtime is not None:
            self._runtime = runtime if self._runtime is None else 0.9 * self._runtime + 0.1 * runtime
        self._hand_in(outcome)
        failpoint("main-after-outcome")
        if self.sated or not self.hints.up:  # else nothing is left until a hint comes
            self.fetch()

    def _hand_in(self, outcome: Outcome) -> None:
        self._owed.add((outcome.key, outcome.attempt))
        self.group.add(finish, outcome, partial(self._ended, outcome), urgent=not self.held)

    def _ended(self, outcome: Outcome, answer: Any) -> None:
        self._owed.discard((outcome.key, outcome.attempt))
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

    def give_back(self, job: Claimed) -> None:
        """Return a job that has not started to its queue."""
        self.end(job, self._back(job.key, job.id, job.attempt, job.task, job.queue))

    def _back(self, key: int, id: str, attempt: int, task: str, queue: str) -> Outcome:
        data = {"attempt": attempt, "worker": self.id}
        return Outcome(key, id, attempt, task, queue, State.QUEUED, clock.micros(), Kind.GIVEN_BACK, data)

    def _give_back_unstarted(self) -> None:
        for key, job in list(self.held.items()):
            if key not in self.running or self.running[key].withdraw():
                self.give_back(job)

    def strays(self) -> None:
        """Look for jobs that the ledger says this node has and that it does not know of (any thread)."""
        found = read.claimed(self.ledger, self.id)
        if found or self._strays:
            self.inbox.put(partial(self._return_strays, found))

    def _return_strays(self, found: Iterable[tuple[int, str, int, str, str]]) -> None:
        """Give back what a claim took whose answer was lost with its connection: the repeated claim took others.

        Nobody may hold it at two looks, and each claim that was under way at the first must have been answered.
        """
        before, self._strays = self._strays, {}
        for key, id, attempt, task, queue in found:
            stray, job = (key, attempt), self.held.get(key)
            if self.stopping or stray in self._owed or (job is not None and job.attempt == attempt):
                continue
            turn = self._strays[stray] = before.get(stray, self._turn)
            if stray in before and (turn < self._turn or not self._claiming):
                log.warning("Job %s was claimed and its worker never told; it is given back.", id)
                self._hand_in(self._back(key, id, attempt, task, queue))

    def _undeliverable(self, job: Claimed, why: str) -> None:
        failure = Failure(ErrorCode.RAISED, "InvalidMessage", why)
        data = {"code": ErrorCode.RAISED, "message": why}
        self.end(job, Outcome(
            job.key, job.id, job.attempt, job.task, job.queue, State.FAILED, clock.micros(), Kind.FAILED, data,
            failure=failure,
        ))  # fmt: skip

    # Cancelling and stopping

    def show_life(self) -> None:
        """Touch the file that probes look at, unless this node is stuck (the lease's thread)."""
        if not self._watch.stuck:
            self.settings.show_life()

    def attend(self) -> None:
        """Look for cancels nobody told of, for strays, and whether the node is stuck (the lease's thread)."""
        self.cancels()
        self.strays()
        self._watch.look()

    def cancels(self) -> None:
        """Begin to cancel the jobs of this node that somebody asked to cancel (any thread)."""
        try:
            self.cancelled = frozenset(read.cancels(self.ledger, self.id))
        except (LedgerUnavailable, LedgerFull) as error:
            log.warning("%s", error)
            return
        if self.cancelled:
            self.inbox.put(partial(self._cancel, self.cancelled))

    def _cancel(self, asked: Iterable[tuple[int, int]]) -> None:
        for key, attempt in asked:
            request = self.running.get(key)
            if request is not None and request.job.attempt == attempt:
                request.begin_cancel()

    def evict(self) -> None:
        """End what runs, so that it runs again elsewhere."""
        for request in list(self.running.values()):
            if request.started_at is not None:
                log.warning("Job %s outlasts the shutdown of its worker and is given back.", request.job.id)
                request.evict()

    def stop(self, timeout: float = 20) -> None:
        """Write everything, give back the rest, and leave the ledger (after the pool has been joined)."""
        if self.stopping:
            return
        self.stopping = True
        self.hints.close()
        self.inbox.close()
        for job in list(self.held.values()):
            self.give_back(job)
        self._lease.stop()
        # By the group's thread: a cold shutdown comes as a signal, maybe in the midst of a transaction of this one.
        self.group.add(nodes.stop, self.id, _left)
        self.group.stop(timeout)
        self._slots.close()


def _ignore(_: Any) -> None:
    pass


def _left(answer: Exception | None) -> None:
    if answer is not None:
        log.warning("The ledger cannot be told that this worker has stopped: %s", answer)


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
