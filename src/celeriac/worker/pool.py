"""The pools a node can run its attempts in: prefork, threads and solo, each Celery's own with a way to report.

A prefork child reports progress and log lines on the pipe that carries its results, so they arrive in
order before the outcome, and no child needs a connection. A thread reports through the node's inbox;
a solo task runs in the hub's thread itself. After the pool has been joined the node writes what is left.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from billiard.common import TERM_SIGNAL
from billiard.einfo import ExceptionInfo
from billiard.pool import DEATH
from celery.concurrency import asynpool, prefork, solo, thread
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop
from setproctitle import setproctitle

from celeriac.worker import capture, evidence, node

log = get_logger(__name__)

# Beside billiard's own ACK, READY, TASK, … and Celery's WORKER_UP (15).
FRAME = 77
LOOK_SECONDS = 1.0


def open_pipe(child: asynpool.Worker) -> Callable[[Any], None]:
    """Let the threads of a child share its pipe, and return what sends a frame to the main process."""
    lock = threading.Lock()
    writer = child.outq._writer

    def send_payload(value: bytes) -> None:  # task threads report, the loop sends results
        with lock:
            writer.send_bytes(value)

    child.outq.send_payload = send_payload
    return lambda frame: child.outq.put((FRAME, (frame,)))


class Worker(asynpool.Worker):
    """A child."""

    def on_loop_start(self, pid: int) -> None:
        """Prepare this child to be cancelled and to report."""
        node.set_current(None)
        setproctitle(f"celeriac: child {self.initargs[1]}")
        capture.send_frame = open_pipe(self)
        capture.prepare_child()
        super().on_loop_start(pid)

    def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
        """Tell the main process, and go. billiard's waits a second here, and so would every stop of a worker."""
        code = (1 if exc else 0) if exitcode is None else exitcode
        if self.on_exit is not None:
            self.on_exit(pid, code)
        evidence.end_well()
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {TERM_SIGNAL})  # its handler would wait for the pipe's lock
            self.outq.put((DEATH, (pid, code)))
        finally:
            os._exit(code)


class ResultHandler(asynpool.ResultHandler):
    """The main process's end of the pipe."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state_handlers[FRAME] = _on_frame


def _on_frame(frame: tuple[Any, ...]) -> None:
    try:
        node.this().frame(frame)
    except Exception:
        log.exception("A report of a task was lost")


class _Sparing:
    """The hub as the pool's writers see it, without the calls to the kernel that would change nothing.

    Before each wait Celery adds or removes every child's pipe, whether it is there or not: seven calls for a no-op job.
    """

    consolidate_callback: Callable[[list[int]], None]

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def add(self, fd: int, callback: Any, flags: int, args: tuple[Any, ...] = (), consolidate: bool = False) -> None:
        """Wait until a pipe can be written to, unless that is waited for already."""
        if not consolidate or fd not in self._hub.consolidate or self._hub.writers.get(fd, fd) is not None:
            self._hub.add(fd, callback, flags, args, consolidate)

    def remove_writer(self, fd: int) -> None:
        """Wait for it no longer."""
        if fd in self._hub.writers:
            self._hub.remove_writer(fd)


class AsynPool(asynpool.AsynPool):
    """Celery's prefork pool with our children."""

    Worker = Worker
    ResultHandler = ResultHandler

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inquest = evidence.Inquest()
        super().__init__(*args, **kwargs)

    def Process(self, *args: Any, **kwargs: Any) -> Any:
        """Return a child that can be asked what it took."""
        process = super().Process(*args, **kwargs)
        if process._start_method == "fork":
            process._Popen = evidence.Popen
        return process

    def _create_write_handlers(self, hub: Any, *args: Any, **kwargs: Any) -> None:
        sparing = _Sparing(hub)
        super()._create_write_handlers(sparing, *args, **kwargs)
        hub.consolidate_callback = sparing.consolidate_callback

    def get_process_queues(self) -> Any:
        """Return the pipes of a new child.

        Celery's raises StopIteration, and the worker ends, while those of one that has just died are not freed.
        """
        if all(self._queues.values()):
            self._queues[self.create_process_queues()] = None
        return super().get_process_queues()

    def flush(self) -> None:
        """Drop what waits for a child, when Celery's connection goes or the worker stops.

        Celery drops what is in a child's pipe as well, for a broker that sends it again, and the child runs it all
        the same. Our claim outlives the connection.
        """
        for job in self._cache.values():
            job._accepted = job._accepted or job._write_to is not None
        super().flush()

    def on_job_process_down(self, job: Any, pid_gone: int) -> None:
        """Have another child take a job that a dead one had not begun.

        Celery looks which children have died, reads what they said, and then looks again whose child has died: one
        that died in between has said that it begins, and nobody has read it.
        """
        child = job._write_to or job._scheduled_for
        if not job._accepted and child is not None and not child._is_alive():
            self.process_flush_queues(child)
            if job._accepted:  # it is lost with its child, which is seen to at the next look
                return
        super().on_job_process_down(job, pid_gone)

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        """Tell whoever waits for the job how its child died."""
        try:
            raise evidence.ChildLost(self._inquest.death(node.this().slots, pid, exitcode))
        except evidence.ChildLost:
            job._set(None, (False, ExceptionInfo()))


class Pool(prefork.TaskPool):
    """`worker_pool` of a Celeriac app."""

    Pool = AsynPool
    word = "prefork"
    blocks = False  # whether tasks run in the hub's thread
    processes = True  # whether an attempt has a process of its own, to be signalled
    _pool: Any

    def register_with_event_loop(self, loop: Any) -> None:
        """Look for lost children every second; Celery would take five to tell of one."""
        super().register_with_event_loop(loop)
        loop.call_repeatedly(LOOK_SECONDS, self.maintain_pool)

    def on_stop(self) -> None:
        """Let running attempts end (for a while), then write everything.

        As Celery's, which looks up from its sleep only twice a second.
        """
        with _stopping():
            pool, self._pool = self._pool, None
            if pool is None:
                return
            over = threading.Event()
            threading.Thread(target=_fire_timers, args=[over], name="celeriac-timers", daemon=True).start()
            try:
                pool.close()
                pool.join()
            finally:
                over.set()

    def on_terminate(self) -> None:
        """Kill what runs; it is given back, and runs again elsewhere."""
        held = node.current_node
        if held is not None:
            held.evict()
        super().on_terminate()
        if held is not None:
            held.stop()


class ThreadPool(thread.TaskPool):
    """Attempts in threads of the main process: cancels and time limits reach them when they report progress."""

    word = "threads"
    blocks = processes = False
    outlasted = False  # whether a thread still runs a task after the stop: Python would wait for it at exit

    def on_start(self) -> None:
        """Let tasks report through the inbox."""
        capture.send_frame = _through_inbox

    def on_apply(
        self, target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, accept_callback: Any = None,
        **_: Any,
    ) -> Any:  # fmt: skip
        """Run an attempt in a thread; what Celery is told of it, it is told in the hub's thread."""
        callbacks = (_in_hub(callback), _in_hub(accept_callback))
        return thread.ApplyResult(self.executor.submit(apply_target, target, args, kwargs, *callbacks))

    def on_stop(self) -> None:
        """Let running attempts end, for a while; what outlasts it is given back, and its late end is refused."""
        with _stopping() as given_up:
            self.executor.shutdown(wait=False, cancel_futures=True)
            for each in tuple(self.executor._threads):
                while each.is_alive() and not given_up.is_set():
                    each.join(0.02)
                    node.this().inbox.drain()
            self.outlasted = given_up.is_set()

    on_terminate = on_stop

    def grow(self, n: int = 1) -> None:
        """Run more attempts at a time."""
        self.limit += n
        self.executor._max_workers = self.limit

    def shrink(self, n: int = 1) -> None:
        """Run fewer attempts at a time; threads that are not needed stay idle."""
        self.grow(-min(n, self.limit - 1))


class SoloPool(solo.TaskPool):
    """One attempt at a time, in the hub's thread: nothing else is heard while it runs."""

    word = "solo"
    blocks, processes = True, False

    def on_start(self) -> None:
        """Let tasks report straight to the node."""
        capture.send_frame = _on_frame

    def on_stop(self) -> None:
        """Write everything."""
        if node.current_node is not None:
            node.current_node.stop()

    on_terminate = on_stop

    def grow(self, n: int = 1) -> None:
        """Refuse."""
        raise ValueError("A solo pool runs one job at a time and cannot grow. Start more workers, or use threads.")

    shrink = grow


def ours(wanted: type[BasePool]) -> type[BasePool]:
    """Return our pool of the kind that was asked for.

    Raises:
        ImproperlyConfigured: for gevent, eventlet and pools of others.
    """
    for pool in (Pool, ThreadPool, SoloPool):
        if issubclass(wanted, pool.__mro__[1]):
            return pool
    raise ImproperlyConfigured(
        f"Celeriac runs the pools prefork, threads and solo, not {wanted.__module__.rpartition('.')[2]}. "
        "Leave -P out, or choose one of them."
    )


def _fire_timers(over: threading.Event) -> None:
    """Fire the hub's timers while its thread waits for the children: they climb the ladder of a cancel."""
    hub = get_event_loop()
    while hub is not None and not over.wait(0.1):
        try:
            hub.fire_timers()
        except Exception:
            log.exception("A timer failed")


def _through_inbox(frame: tuple[Any, ...]) -> None:
    node.this().inbox.put(partial(_on_frame, frame))


def _in_hub(callback: Callable[..., object]) -> Callable[..., None]:
    return lambda *args: node.this().inbox.put(partial(callback, *args))


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Give running attempts `shutdown_seconds` (none in a cold shutdown), then evict them; at the end stop the node."""
    held, given_up = node.current_node, threading.Event()
    if held is None:
        yield given_up
        return

    def evict() -> None:
        held.evict()
        given_up.set()

    timer = threading.Timer(0 if worker_state.should_terminate else held.settings.shutdown_seconds, evict)
    timer.daemon = True
    timer.start()
    yield given_up
    timer.cancel()
    held.stop()
