"""`async def` tasks: each attempt runs its coroutine to the end, in the thread it was given.

Celery calls a task and takes what it returns; `awaited` is what it calls. A thread keeps its event loop from
one attempt to the next. A cancel or a time limit ends the coroutine with CancelledError where it
awaits, so its `finally` and `async with` blocks run.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from celeriac import current

LOOK_SECONDS = 0.5

_thread = threading.local()


def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function in place of a coroutine function; anything else as it is."""
    if not inspect.iscoroutinefunction(function):
        return function

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return _complete(function(*args, **kwargs))

    return run


def _complete(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, beside a loop that runs already if there is one (`task_always_eager`)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(coroutine)
    answers: list[Any] = []
    context = contextvars.copy_context()
    beside = threading.Thread(target=lambda: answers.append(context.run(_outcome, coroutine)))
    beside.start()
    beside.join()
    value, error = answers[0]
    if error is not None:
        raise error
    return value


def _outcome(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    try:
        with asyncio.Runner() as runner:
            return runner.run(coroutine, context=contextvars.copy_context()), None
    except BaseException as error:
        return None, error


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    runner = getattr(_thread, "runner", None) or asyncio.Runner()
    _thread.runner = None
    try:
        # A runner keeps the context of its first run; each attempt has its own.
        value = runner.run(_watched(coroutine), context=contextvars.copy_context())
    except Exception:
        _thread.runner = runner
        raise
    except BaseException:  # a signal's, which leaves the coroutine where it was: closing the loop cancels it
        runner.close()
        raise
    _thread.runner = runner
    return value


async def _watched(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine, and end it when its job is cancelled where no signal can tell it."""
    task = asyncio.ensure_future(coroutine)
    while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
        if current.cancelled():
            task.cancel()
            await asyncio.wait([task])
            raise current.JobCancelled
    return task.result()
