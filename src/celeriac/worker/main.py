"""Starting a worker node in this process.

Called by `celeriac worker`. The same node runs under plain `celery -A app worker`, which
reads the same configuration.
"""

import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence

from celery.worker import state as worker_state
from setproctitle import setproctitle

from celeriac.app import Celeriac
from celeriac.settings import Settings


def run(
    settings: Settings, app: Celeriac, queues: Sequence[str], concurrency: int, name: str = "worker",
    pool: str | None = None,
) -> int:  # fmt: skip
    """Run a worker node `name@host` until a signal; return the exit code.

    SIGTERM and SIGINT stop it warmly: nothing new is claimed, what has not started is given
    back, running jobs get `shutdown_seconds`.
    """
    # Celery logs every job twice, with its arguments and its result; `request` logs its end, without them.
    for talkative in ("celery.app.trace", "celery.worker.strategy", "celery.worker.consumer.connection"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    sys.setswitchinterval(0.0005)  # the hub and the group's thread hand the GIL over often
    hostname = f"{name}@{socket.gethostname()}"

    def title(*_: object) -> None:  # Celery would say celeryd, and its arguments
        setproctitle(f"celeriac: worker {hostname}")

    worker = type("Worker", (app.Worker,), {"set_process_status": title})(
        hostname=hostname,
        concurrency=concurrency,
        pool=pool,
        queues=list(queues),
        loglevel=logging.getLevelName(settings.log_level.upper()),
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    gc.collect()
    gc.freeze()  # the children share what is here now; collecting it in each would copy it
    worker.start()
    code = int(worker.exitcode or worker_state.should_stop or 0)
    if getattr(worker.pool, "outlasted", False):
        logging.shutdown()
        os._exit(code)  # Python would wait for the thread; its job has been given back
    return code
