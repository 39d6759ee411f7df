"""Starting a worker node in this process.

Called by `celeriac worker`. The same node runs under plain `celery -A app worker`, which
reads the same configuration.
"""

import logging
import socket
import sys
from collections.abc import Sequence

from celery.worker import state as worker_state
from setproctitle import setproctitle

from celeriac.app import Celeriac
from celeriac.errors import CannotStart
from celeriac.settings import Settings


def run(
    settings: Settings,
    app: Celeriac,
    queues: Sequence[str],
    concurrency: int,
    name: str = "worker",
    pool: str = "prefork",
) -> int:
    """Run a worker node `name@host` until a signal; return the exit code.

    SIGTERM and SIGINT stop it warmly: nothing new is claimed, what has not started is given
    back, running jobs get `shutdown_seconds`.
    """
    if pool != "prefork":
        raise CannotStart(f"The pool {pool!r} is not supported. Use prefork.")
    sys.setswitchinterval(0.0005)  # the hub and the group's thread hand the GIL over often
    hostname = f"{name}@{socket.gethostname()}"
    setproctitle(f"celeriac: worker {hostname}")
    worker = app.Worker(
        hostname=hostname,
        concurrency=concurrency,
        queues=list(queues),
        loglevel=logging.getLevelName(settings.log_level.upper()),
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or worker_state.should_stop or 0)
