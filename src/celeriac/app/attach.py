"""attach: a Celery app that exists already gets a ledger, without being written anew.

In mode `observe` everything stays as it was, and the ledger looks on (`observer`,
worker/observe.py). In mode `own` the app becomes what `Celeriac()` is from the start. The app
object stays the same; its class becomes a subclass of its own with what a ledger adds, so that
attaching works before and after tasks are defined and the configuration is read.
docs/coming-from-celery.md tells how to go from the one to the other.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import celery
from kombu.utils.imports import symbol_by_name

from celeriac.app.application import OWN, Celeriac, Connected, Owned, Task, check_task, take_over
from celeriac.app.observer import ObservedAMQP, Observer
from celeriac.app.sender import LedgerAMQP
from celeriac.errors import CannotStart

App = TypeVar("App", bound=Any)

OBSERVE, OWNED = "observe", "own"


class Attached:
    """What both have that makes them pickle as Celery apps do: a pool that spawns its children asks for it."""

    plain: tuple[type, dict[str, Any]]  # the class the app had, and the classes it was told to use

    def __reduce__(self) -> tuple[Any, ...]:
        kind, classes = self.plain
        return _unpickled, (kind, {**self.__reduce_keys__(), **classes}, self.mode)  # type: ignore[attr-defined]


def _unpickled(kind: type, keys: dict[str, Any], mode: str) -> Any:
    return attach(kind(**keys, set_as_current=False), mode=mode, expose=keys["changes"].get("celeriac_expose", ()))


class ObservedApp(Attached, Connected):
    """An attached app whose jobs stay with its own broker."""

    mode = OBSERVE

    @cached_property
    def observer(self) -> Observer:
        """Who writes down what this process sees."""
        return Observer(lambda: self.settings)


class OwnedApp(Attached, Owned):
    """An attached app whose jobs live in the ledger."""

    def reruns(self, task: Any) -> bool:
        """Say whether a started attempt that loses its worker runs again: as its author told Celery, by acks_late."""
        return bool(self.conf.task_acks_late if task is None else task.acks_late)  # type: ignore[attr-defined]


def attach(app: App, *, mode: str = OBSERVE, expose: Sequence[str] = ()) -> App:
    """Tie an existing Celery app to the ledger of the `CELERIAC_*` settings, and return it.

    `observe` publishes and runs as before and records everything; `own` makes the ledger the queue
    and the result backend. `expose` holds shell patterns of the tasks that may be submitted over
    HTTP (mode own); none are unless named. Attaching again in the same way changes nothing.

    Raises:
        CannotStart: when the app cannot be attached so.
    """
    _check(app, mode, expose)
    if not isinstance(app, Connected):
        _begin(app, mode)
    _configure(app, {"celeriac_expose": tuple(expose)})
    return app


def _check(app: Any, mode: str, expose: Sequence[str]) -> None:
    if not isinstance(app, celery.Celery):
        raise CannotStart(f"attach() takes a Celery app, not a {type(app).__name__}.")
    if isinstance(app, Celeriac):
        raise CannotStart(f"{app.main or 'This app'} is a Celeriac app: it has its ledger already. Leave attach() out.")
    if mode not in (OBSERVE, OWNED):
        raise CannotStart(f"attach() knows the modes observe and own, not {mode!r}.")
    if isinstance(expose, str):
        raise CannotStart(f'expose is a list of patterns, as in expose=("{expose}",).')
    if expose and mode == OBSERVE:
        raise CannotStart(
            'Jobs are submitted over HTTP in mode "own" only: what is observed is queued by its own broker. '
            "Leave expose out for now."
        )
    if getattr(app, "mode", mode) != mode:
        raise CannotStart(f"{app.main or 'This app'} is attached in mode {app.mode}; a process has one mode.")


def _begin(app: Any, mode: str) -> None:
    if mode == OWNED:
        for task in app._tasks.values():
            check_task(task)
    kind, amqp = (OwnedApp, LedgerAMQP) if mode == OWNED else (ObservedApp, ObservedAMQP)
    app.plain = type(app), {"amqp": app.amqp_cls, "task_cls": app.task_cls}
    app.__class__ = type(type(app).__name__, (kind, type(app)), {"__module__": type(app).__module__})
    app.amqp_cls = _joined(amqp, symbol_by_name(app.amqp_cls))
    if mode == OBSERVE:
        if made := app.__dict__.get("amqp"):  # somebody has published already
            made.__class__ = app.amqp_cls
            made.__dict__.pop("send_task_message", None)
        app.steps["worker"].add("celeriac.worker.observe:ObserveStep")
        return
    if "Task" not in app.__dict__:
        app.task_cls = _joined(Task, symbol_by_name(app.task_cls))
    for made in ("amqp", "control", "events"):
        app.__dict__.pop(made, None)
    app._pool = app._backend_cache = None
    app._local.__dict__.pop("backend", None)
    take_over(app)
    _configure(app, OWN)


def _joined(ours: type, theirs: type) -> type:
    return ours if issubclass(ours, theirs) else type(ours.__name__, (ours, theirs), {"abstract": True})


def _configure(app: Any, configuration: dict[str, Any]) -> None:
    """Set configuration over what the app reads from anywhere, now or whenever it does."""

    def apply(**_: Any) -> None:
        app._conf.update(configuration)

    app.on_after_configure.connect(apply, weak=False)
    if app.configured:
        apply()
