"""Jobs run in this process as soon as they are committed; for `celeriac.testing`.

The ledger, the moves (claim, start, note, finish) and the running of an attempt are those of a worker.
Missing are the pool and what needs one: time limits, cancelling what runs, the death of a process.
What waits for its time runs when `advance` has moved the clock there, as the keeper would see to; `.get()` of
such a job is an error, since time stands still meanwhile.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
from celery import _state as celery_state

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app import Celeriac
from celeriac.errors import JobNotFound, JobsNeverEnd, JobWaits
from celeriac.jobs import Claimed, ClaimRequest, Kind, Note, Outcome, Remark, Start
from celeriac.ledger import Transaction, claim, finish, note, read, remark, start, upkeep
from celeriac.ledger.sql import as_json
from celeriac.states import State, is_final
from celeriac.worker import capture
from celeriac.worker.backend import ResultConsumer
from celeriac.worker.capture import Ended, run_attempt
from celeriac.worker.history import REMARK, Frame

WORKER = "inline"
MOST = 10_000  # attempts that one call may set off


class Inline:
    """Runs what an app submits, one job after the other."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.raises = False
        self.ended: list[str] = []  # ids in the order of their end
        self._ledger = app.ledger
        self._told = self._ledger.announce
        self._queues: dict[str, None] = {}
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._runs_in: int | None = None  # the thread that holds the lock
        self._again = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run jobs until the block ends."""
        now, outer, send = type(self.app).now, vars(self.app).get("now"), capture.send_frame
        wait = ResultConsumer.on_wait_for_pending

        def awaited(consumer: Any, result: Any, timeout: float | None = None, **options: Any) -> None:
            if consumer.app is self.app:
                self._awaited(result.id, timeout)
            wait(consumer, result, timeout, **options)

        self.app.now = lambda: now(self.app) + clock.shifted()
        ResultConsumer.on_wait_for_pending = awaited  # type: ignore[method-assign, assignment]
        capture.send_frame = self._frame
        self._ledger.announce = self._heard
        try:
            yield
        finally:
            self._ledger.announce, capture.send_frame = self._told, send
            ResultConsumer.on_wait_for_pending = wait  # type: ignore[method-assign]
            del self.app.now
            if outer is not None:  # that of a block around this one
                self.app.now = outer

    def advance(self, until: int | None) -> None:
        """Move the clock to a moment (None: on and on), and run what falls due on the way, each at its time."""
        for _ in range(MOST):
            due = upkeep.next_due(self._ledger)
            if due is None or (until is not None and due > until):
                break
            clock.shift(max(due - clock.micros(), 0))
            with self._ledger.transaction() as tx:
                upkeep.expire(tx)
                upkeep.fall_due(tx)
        else:
            raise JobsNeverEnd(MOST)
        if until is not None:
            clock.shift(max(until - clock.micros(), 0))

    def _heard(self, tx: Transaction) -> None:
        """Run what a commit has queued. A commit made meanwhile, by a task or another thread, is not run inside it."""
        if self._told is not None:
            self._told(tx)
        self.ended += tx.ends
        if not tx.wakes:
            return
        self._queues.update(dict.fromkeys(tx.wakes))
        self._again = True
        self._run_again()

    def _run_again(self) -> None:
        while self._again and self._lock.acquire(blocking=False):
            self._again, self._runs_in = False, threading.get_ident()
            try:
                self._run_queued()
            finally:
                self._runs_in = None
                self._lock.release()

    def _awaited(self, id: str, timeout: float | None) -> None:
        """Run what can run before somebody waits for a job. Raises JobWaits, where that would be for ever."""
        if self._runs_in == threading.get_ident():  # a task that may wait for others
            self._run_queued()
        elif self._lock.acquire(timeout=-1 if timeout is None else timeout):  # when no other thread runs jobs
            self._lock.release()
            self._run_again()
        else:
            return
        try:
            job = read.summary(self._ledger, SYSTEM, id)
        except JobNotFound:
            job = None
        if job is not None and is_final(job.state):
            return
        if job is not None and job.state in (State.SCHEDULED, State.RETRYING):
            raise JobWaits(id, "the job waits for its time; call advance() or run_all()")
        if upkeep.next_due(self._ledger) is not None:
            raise JobWaits(id, "it comes after a job that waits for its time; call advance() or run_all()")
        if job is None:
            raise JobWaits(id, "nobody has submitted it in this block, or the one before it did not succeed")
        told = "it is running" if job.state is State.RUNNING else f"nothing here runs {job.task!r} from {job.queue!r}"
        raise JobWaits(id, told)

    def _run_queued(self) -> None:
        failed = None
        for _ in range(MOST):
            job = self._claim()
            if job is None:
                break
            self._run(job)
            if self.raises and failed is None and read.summary(self._ledger, SYSTEM, job.id).state is State.FAILED:
                failed = job.id
        else:
            raise JobsNeverEnd(MOST)
        if failed and threading.get_ident() == self._thread:
            self.app.AsyncResult(failed).get()  # raises what the task raised

    def _claim(self) -> Claimed | None:
        request = ClaimRequest(WORKER, tuple(self._queues), as_json(sorted(self.app.tasks)), 1)
        with self._ledger.transaction() as tx:
            [jobs] = claim(tx, [request])
            if isinstance(jobs, Exception):
                raise jobs
            start(tx, [Start(job.key, job.attempt, clock.micros()) for job in jobs])
        return jobs[0] if jobs else None

    def _run(self, job: Claimed) -> None:
        with self._as_in_a_child():
            ended = run_attempt(job.task, job.id, _request(job), job.message.body, "application/json", "utf-8")
        with self._ledger.transaction() as tx:
            finish(tx, [_outcome(job, ended)])
        if ended.failure is not None and ended.failure.type == "KeyboardInterrupt":
            raise KeyboardInterrupt

    @contextmanager
    def _as_in_a_child(self) -> Iterator[None]:
        """Set what Celery asks of the thread and the process; a pool's child has it set once and for all."""
        current, blocks = celery_state._tls.current_app, celery_state.task_join_will_block()
        self.app.set_current()
        celery_state._set_task_join_will_block(True)
        try:
            yield
        finally:
            celery_state._tls.current_app = current
            celery_state._set_task_join_will_block(blocks)

    def _frame(self, frame: Frame) -> None:
        key, attempt, at, kind, data = frame
        if kind == REMARK:
            self._ledger.do(remark, Remark(key, attempt, at, data["state"], data["meta"]))
        else:
            self._ledger.do(note, Note(key, attempt, at, Kind(kind), data))


def _request(job: Claimed) -> dict[str, Any]:
    """Return a claimed job as Celery's tracer wants it."""
    properties = msgspec.json.decode(job.message.properties)
    return {
        **msgspec.json.decode(job.message.headers),
        "celeriac": {"key": job.key, "attempt": job.attempt, "owner": job.owner, "queue": job.queue, "task": job.task},
        "delivery_info": {"exchange": "", "routing_key": job.queue, "priority": properties.get("priority")},
        "correlation_id": properties.get("correlation_id"),
        "reply_to": properties.get("reply_to"),
    }


def _outcome(job: Claimed, ended: Ended) -> Outcome:
    data: dict[str, Any] = {"attempt": job.attempt}
    if ended.failure is not None:
        data |= {"code": ended.failure.code, "type": ended.failure.type, "message": ended.failure.message[:500]}
    outcome = Outcome(
        job.key, job.id, job.attempt, job.task, job.queue, ended.state, clock.micros(), ended.kind, data,
        failure=ended.failure,
    )  # fmt: skip
    return replace(outcome, **ended.fields())
