"""The prefork pool, with one more kind of message on its pipe.

A child reports progress and log lines on the pipe that carries its results, so they arrive in
order before the outcome, and no child needs a connection. After the pool has been joined the
node writes what is left.
"""

import threading
from typing import Any

from celery.concurrency import asynpool
from celery.concurrency.prefork import TaskPool
from celery.utils.log import get_logger
from setproctitle import setproctitle

from celeriac.worker import capture, node

log = get_logger(__name__)

# Beside billiard's own ACK, READY, TASK, … and Celery's WORKER_UP (15).
FRAME = 77
LOOK_SECONDS = 1.0


class Worker(asynpool.Worker):
    """A child."""

    def on_loop_start(self, pid: int) -> None:
        """Prepare this child to be cancelled and to report."""
        lock = threading.Lock()
        writer = self.outq._writer

        def send_payload(value: bytes) -> None:  # task threads report, the loop sends results
            with lock:
                writer.send_bytes(value)

        def send_frame(frame: tuple[Any, ...]) -> None:
            self.outq.put((FRAME, (frame,)))

        self.outq.send_payload = send_payload
        capture.send_frame = send_frame
        capture.prepare_child()
        super().on_loop_start(pid)


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


class AsynPool(asynpool.AsynPool):
    """Celery's prefork pool with our children."""

    Worker = Worker
    ResultHandler = ResultHandler


class Pool(TaskPool):
    """`worker_pool` of a Celeriac app."""

    Pool = AsynPool

    def register_with_event_loop(self, loop: Any) -> None:
        """Look for lost children every second; Celery would take five to tell of one."""
        super().register_with_event_loop(loop)
        loop.call_repeatedly(LOOK_SECONDS, self.maintain_pool)

    def on_stop(self) -> None:
        """Let running attempts end (for a while), then write everything."""
        held = node.current_node
        timer = None
        if held is not None:
            timer = threading.Timer(held.settings.shutdown_seconds, _evict, [held])
            timer.daemon = True
            timer.start()
        super().on_stop()
        if timer is not None:
            timer.cancel()
        if held is not None:
            held.stop()


def _evict(held: node.Node) -> None:
    for request in list(held.held.values()):
        if getattr(request, "started_at", None) is not None:
            log.warning("Job %s outlasts the shutdown and is given back.", request.id)
            request.evict()


def title_children(hostname: str) -> None:
    """Name a child process for `ps`."""
    setproctitle(f"celeriac: child {hostname}")
