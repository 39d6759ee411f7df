"""How a node receives a task's messages: those it claimed become LedgerRequests, broadcasts stay Celery's own.

`bind` is called for every registered task when a worker starts, whatever the task's base class. A
task's own Request class keeps its say: ours is put behind it.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.utils.imports import symbol_by_name
from celery.worker.request import Request
from celery.worker.strategy import default

from celeriac.app.application import Task, replace_in_ledger
from celeriac.app.coroutines import awaited
from celeriac.worker.request import LedgerRequest

STRATEGY = "celeriac.worker.strategy:receive"


def bind(task: Any) -> None:
    """Have a task's messages received here; a task made before its app was attached gets what ours are born with."""
    task.Strategy = STRATEGY
    if inspect.iscoroutinefunction(task.run):
        task.run = awaited(task.run)
    if not isinstance(task, Task):
        task.on_replace = partial(replace_in_ledger, task, on_replace=task.on_replace)


def receive(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return the handler of a task's messages, as Celery's consumer asks for it."""
    asked = task.Request
    plain = default(task, app, consumer, **options)
    task.Request = followed(symbol_by_name(asked))
    try:
        ours = default(task, app, consumer, **options)
    finally:
        task.Request = asked

    def take(message: Any, *args: Any, **kwargs: Any) -> Any:
        return (ours if "celeriac" in message.headers else plain)(message, *args, **kwargs)

    return take


def followed(request: type[Request]) -> type[Request]:
    """Return a request class whose ends lead to the ledger."""
    if issubclass(LedgerRequest, request):
        return LedgerRequest
    return type(request.__name__, (request, LedgerRequest), {})
