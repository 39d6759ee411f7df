"""Celeriac, a celery.Celery whose jobs live in the ledger, and finding it by name.

Everything of Celery's stays: tasks, canvas, `celery worker`, signals. What differs is set
here as configuration: where messages go (`sender`), who consumes them (`transport`), how they
run and where results are (`worker`), each named by path so that a client never loads a worker.
"""

import importlib
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import celery
import kombu.transport
from celery import chord, group
from celery.canvas import _chain

from celeriac.app.sender import LedgerAMQP
from celeriac.errors import CannotStart
from celeriac.instance import connect
from celeriac.ledger import Ledger
from celeriac.settings import Settings, load

kombu.transport.TRANSPORT_ALIASES["celeriac"] = "celeriac.transport:Transport"

CONFIGURATION: dict[str, Any] = {
    "broker_url": "celeriac://",
    "result_backend": "celeriac.worker.backend:LedgerBackend",
    "worker_pool": "celeriac.worker.pool:Pool",
    "broker_connection_retry_on_startup": True,
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "result_extended": True,
    "task_default_queue": "default",
    "task_acks_late": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    # One broker window a worker: how much it holds is the transport's `room`, not a prefetch count.
    "worker_prefetch_multiplier": 0,
    "task_track_started": False,
    "worker_disable_rate_limits": True,  # a limit in one worker's memory would hold claimed jobs there
    "worker_lost_wait": 0.5,
    "enable_utc": True,
    "timezone": "UTC",
}


class Task(celery.Task):
    """The base of a Celeriac app's tasks."""

    abstract = True

    def replace(self, sig: Any) -> Any:
        """Go on as another task, under the same id. Raises NotImplementedError for a chain, group or chord."""
        if isinstance(sig, (group, chord, _chain)):
            kind = type(sig).__name__.strip("_")
            raise NotImplementedError(f"A task can be replaced by one task in this version, not by a {kind}.")
        return super().replace(sig)


class Celeriac(celery.Celery):
    """A Celery app with a ledger.

    `@app.task` takes, beside everything Celery's does: `cost`, a function of the task's
    arguments that measures their size; `queues`, thresholds of that cost to queue names (the
    key None takes the rest); `max_attempts`, a cap on executions.

    Settings come from `CELERIAC_*` variables and `celeriac.toml` when first needed.
    """

    amqp_cls = "celeriac.app.sender:LedgerAMQP"
    task_cls = "celeriac.app.application:Task"

    def __init__(self, main: str | None = None, **options: Any) -> None:
        configuration = {**CONFIGURATION, **options.pop("config", {})}
        super().__init__(main, **options)
        self.conf.update(configuration)
        self.steps["worker"].add("celeriac.worker.steps:LedgerStep")
        self.steps["consumer"].add("celeriac.worker.steps:ClaimStep")

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load()

    @property
    def ledger(self) -> Ledger:
        """The ledger of this process; a forked child gets one of its own."""
        return connect(self.settings)

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function. Unlike Celery's, it belongs to this app alone unless `shared=True`."""
        options.setdefault("shared", False)  # what one app may run over HTTP, another should not by accident
        return super().task(*args, **options)

    def _task_from_fun(self, fun: Any, *args: Any, **options: Any) -> Any:
        # A class attribute that is a plain function would become a method of the task.
        if callable(options.get("cost")):
            options["cost"] = staticmethod(options["cost"])
        # Celery 5.7 warns of these two as class attributes. The queue is ours to route by (costs.py),
        # the priority is set once the task is bound.
        if "queue" in options:
            options["own_queue"] = options.pop("queue")
        priority = options.pop("priority", None)
        task = super()._task_from_fun(fun, *args, **options)
        if priority is not None:
            type(task).priority = priority
        return task


def load_app(name: str) -> Celeriac:
    """Import `module:attribute` (the attribute defaults to the only Celeriac in the module).

    Raises:
        CannotStart: with the app's own error and its file, none of our frames.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name:
        raise CannotStart("No app was named. Say which one, as in `celeriac dev mymodule:app`.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise CannotStart(_import_trouble(module_name, error)) from None
    if attribute:
        found = getattr(module, attribute, None)
        if found is None:
            raise CannotStart(f"{module_name} has no attribute {attribute!r}. Name its app, as in `{module_name}:app`.")
    else:
        apps = {id(value): value for value in vars(module).values() if isinstance(value, celery.Celery)}
        if len(apps) != 1:
            raise CannotStart(f"{module_name} has {len(apps)} Celery apps. Name one, as in `{module_name}:app`.")
        [found] = apps.values()
    if not isinstance(found, Celeriac):
        kind = type(found).__name__
        raise CannotStart(f"{name} is a {kind}, not a Celeriac app. Make it with `app = Celeriac(...)`.")
    return found


def _import_trouble(module_name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and module_name.split(".")[0] == error.name:
        return f"There is no module {error.name!r} here or on the Python path (looked in {os.getcwd()} first)."
    own = str(Path(__file__).parent.parent)
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((own, "<frozen")) and "importlib" not in file:
            place = f" at {file}:{trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        place = f" at {error.filename}:{error.lineno}"
    return f"The app {module_name} cannot be imported: {type(error).__name__}: {error}{place}"


__all__ = ["Celeriac", "LedgerAMQP", "load_app"]
