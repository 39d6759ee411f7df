"""`celeriac worker APP`: one worker node, as a service manager runs it.

It checks that the database is at this version and does not migrate. Next: worker/.
"""

import logging
import os
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.database import open_existing
from celeriac.cli.options import WORDS, app_argument, home_option, load_settings

if TYPE_CHECKING:
    from celeriac.app import Celeriac


class Pool(click.ParamType[str]):
    """One of the pools that jobs can run in."""

    name = "pool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in ("prefork", "threads", "solo"):
            self.fail(f"the pools are prefork, threads and solo; jobs do not run in {value!r}", param, ctx)
        return str(value)


POOL = Pool()


@click.command("worker")
@app_argument
@home_option
@click.option("-Q", "--queues", type=WORDS, default=(), help="Queues to work on; else all queues of the app.")
@click.option("-c", "--concurrency", type=click.IntRange(1, 1000), help="Jobs at a time; else one per CPU.")
@click.option(
    "-P",
    "--pool",
    type=POOL,
    help="How jobs run: prefork (the default, in processes), threads, or solo.",
)
@click.option("-n", "--name", default="worker", show_default=True, help="Name of the node; the host is added.")
@click.pass_context
def command(
    ctx: click.Context, app: str | None, home: Path | None, queues: tuple[str, ...], concurrency: int | None,
    pool: str | None, name: str,
) -> None:  # fmt: skip
    """Run a worker node of APP (module:attribute).

    SIGTERM and Ctrl-C let running jobs finish, for CELERIAC_SHUTDOWN_SECONDS at most.
    """
    from celeriac.cli.service import begin

    settings = load_settings(home=home, app=app)
    begin(f"worker {name}@{socket.gethostname()}", settings)
    from celeriac import worker
    from celeriac.app import load_app

    _tell_root()
    application = load_app(settings.app)
    open_existing(settings)
    queues = queues or queues_of(application)
    ctx.exit(worker.run(settings, application, queues, concurrency or os.cpu_count() or 1, name, pool))


def queues_of(app: "Celeriac") -> tuple[str, ...]:
    """Return all queues of an app: its tasks' own, the one for everything else, and those of `task_queues`."""
    from celeriac.app import Tasks

    return tuple(dict.fromkeys([*Tasks(app).queues, str(app.conf.task_default_queue), *app.amqp.queues]))


def _tell_root() -> None:
    """Say in one line what Celery says in eight: that a worker need not be root."""
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    if os.geteuid() == 0:
        logging.getLogger(__name__).warning("Running as root; give the worker a user of its own in production.")
