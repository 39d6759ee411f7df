"""Celeriac, a celery.Celery whose jobs live in the ledger, and finding it by name.

Everything of Celery's stays: tasks, canvas, `celery worker`, signals. What differs is set
here as configuration: where messages go (`sender`), who consumes them (`transport`), how they
run and where results are (`worker`), each named by path so that a client never loads a worker.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import celery
import kombu.transport

from celeriac.access import SYSTEM
from celeriac.app import errbacks
from celeriac.app.coroutines import awaited
from celeriac.app.sender import LedgerAMQP, capture, capturing, is_limit
from celeriac.errors import CannotStart
from celeriac.instance import connect
from celeriac.jobs import Job
from celeriac.ledger import Ledger, read
from celeriac.settings import Settings, load

kombu.transport.TRANSPORT_ALIASES["celeriac"] = "celeriac.transport:Transport"

# What makes an app's jobs live in the ledger.
OWN: dict[str, Any] = {
    "broker_url": "celeriac://",
    "broker_read_url": None,
    "broker_write_url": None,
    "result_backend": "celeriac.worker.backend:LedgerBackend",
    "worker_pool": "celeriac.worker.pool:Pool",
    "broker_connection_retry_on_startup": True,
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "result_extended": True,
    # One broker window a worker: how much it holds is the transport's `room`, not a prefetch count.
    "worker_prefetch_multiplier": 0,
    "task_track_started": False,
    "worker_disable_rate_limits": True,  # a limit in one worker's memory would hold claimed jobs there
    "worker_lost_wait": 0.5,
}
# What a Celeriac app has beside that; `attach` leaves it to the app's author.
CONFIGURATION: dict[str, Any] = {
    **OWN,
    "task_default_queue": "default",
    "task_acks_late": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "enable_utc": True,
    "timezone": "UTC",
}


class Task(celery.Task):
    """The base of a Celeriac app's tasks."""

    abstract = True

    def on_replace(self, sig: Any) -> Any:
        """Go on as another task or canvas under the same id."""
        return replace_in_ledger(self, sig, super().on_replace)


def replace_in_ledger(task: Any, sig: Any, on_replace: Callable[[Any], Any]) -> Any:
    """Let a task go on as a canvas; what that sends commits with the end of the attempt."""
    box = capture.get()
    if box is None or task.request.is_eager:
        return on_replace(sig)
    with capturing():
        box.replaced = True
        return on_replace(sig)


class Connected:
    """What an app has that is tied to a ledger: a Celeriac, or one that `attach` was called on."""

    mode = "own"

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load()

    @property
    def ledger(self) -> Ledger:
        """The ledger of this process; a forked child gets one of its own."""
        return connect(self.settings)

    def reruns(self, task: Any) -> bool:
        """Say whether a started attempt of a task (None: an unknown one) that loses its worker runs again."""
        return True


class Owned(Connected):
    """An app whose jobs live in the ledger, whatever CELERY_BROKER_URL says."""

    def joining(self, connection: Any) -> AbstractContextManager[None]:
        """Submit within a transaction of your own: what a block sends lives or dies with it.

            with app.joining(connection):
                add.delay(1, 2)

        See `Ledger.joining` for the connections it takes.
        """
        return self.ledger.joining(connection)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to consume from."""
        return super().connection_for_read(url or OWN["broker_url"], **options)  # type: ignore[misc]

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to publish on."""
        return super().connection_for_write(url or OWN["broker_url"], **options)  # type: ignore[misc]

    def _task_from_fun(self, fun: Any, *args: Any, **options: Any) -> Any:
        # A class attribute that is a plain function would become a method of the task.
        if callable(options.get("cost")):
            options["cost"] = staticmethod(options["cost"])
        task = super()._task_from_fun(awaited(fun), *args, **options)  # type: ignore[misc]
        check_task(task)
        return task

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a task made by a class."""
        if inspect.iscoroutinefunction(task.run):
            task.run = awaited(task.run)
        check_task(task)
        return super().register_task(task, **options)  # type: ignore[misc]

    def job(self, id: str) -> Job:
        """Return the job behind a task id. Raises JobNotFound, where AsyncResult would say PENDING."""
        return read.job(self.ledger, SYSTEM, id)


def check_priority(priority: Any, task: str = "A task") -> None:
    """Refuse a priority of a task's own that no job can have. Raises CannotStart."""
    if priority is not None and not (type(priority) is int and 0 <= priority <= 9):
        raise CannotStart(f"{task} has the priority {priority!r}. It is a whole number from 0 to 9, higher first.")


def check_task(task: Any) -> None:
    """Refuse a priority or a time limit of a task's own that no job can have. Raises CannotStart."""
    check_priority(task.priority, task.name)
    for name in ("time_limit", "soft_time_limit"):
        limit = getattr(task, name, None)
        if not is_limit(limit):
            raise CannotStart(f"{task.name} has the {name} {limit!r}. It is a number of seconds, at most 100 years.")


def take_over(app: Any) -> None:
    """Let an app's results be in the ledger, and its worker claim from it."""
    app.backend_cls = OWN["result_backend"]  # CELERY_RESULT_BACKEND would win over the configuration
    app.control_cls = "celeriac.app.control:LedgerControl"
    errbacks.register(app)
    app.steps["worker"].add("celeriac.worker.steps:LedgerStep")
    app.steps["consumer"].add("celeriac.worker.steps:ClaimStep")


class Celeriac(Owned, celery.Celery):
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
        take_over(self)

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function. Unlike Celery's, it belongs to this app alone unless `shared=True`."""
        check_priority(options.get("priority"))
        options.setdefault("shared", False)  # what one app may run over HTTP, another should not by accident
        return super().task(*args, **options)

    def _task_from_fun(self, fun: Any, *args: Any, **options: Any) -> Any:
        # Celery 5.7 warns of these two as class attributes. The queue is ours to route by (costs.py),
        # the priority is set once the task is bound.
        if "queue" in options:
            options["own_queue"] = options.pop("queue")
        priority = options.pop("priority", None)
        check_priority(priority, options.get("name") or fun.__name__)
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
    if isinstance(found, Connected):
        return cast(Celeriac, found)
    if isinstance(found, celery.Celery):
        raise CannotStart(f"{name} is a Celery app without a ledger. Add `celeriac.attach(app)` where it is made.")
    kind = type(found).__name__
    raise CannotStart(f"{name} is a {kind}, not a Celery app. Name one, as in `{module_name}:app`.")


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
    kind = "" if isinstance(error, CannotStart) else f"{type(error).__name__}: "
    return f"The app {module_name} cannot be imported: {kind}{error}{place}"


__all__ = ["Celeriac", "Connected", "LedgerAMQP", "Owned", "check_task", "load_app", "take_over"]
