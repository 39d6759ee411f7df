"""Why an attempt failed, made storable: an exception however hostile, its traceback from the user's code on.

Called where an attempt is run (`capture.py`), and where the main process ends one (`request.py`).
"""

from pathlib import Path

import celery
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.exceptions import EncodeError

from celeriac.jobs import ErrorCode, Failure, storable

_WORKER = Path(__file__).parent
# What runs a task; the demo's own tasks are users', too.
_OURS = tuple(f'  File "{folder}/' for folder in (Path(celery.__file__).parent, _WORKER, _WORKER.parent / "app"))
_HEAD = "Traceback (most recent call last):\n"


def failure_of(error: BaseException, traceback: str | None, celery: str | None) -> Failure:
    """Describe an exception so that it can be stored, however hostile its `str` or `repr` is."""
    name, message = _told(error)
    code = ErrorCode.NOT_STORABLE if isinstance(error, EncodeError) else ErrorCode.RAISED
    if isinstance(error, (SoftTimeLimitExceeded, TimeLimitExceeded)):
        code = ErrorCode.TIMEOUT
    return Failure(code, name, storable(message, 100_000), traceback and storable(shortened(traceback)), celery)


def shortened(traceback: str) -> str:
    """Return a traceback without the frames of Celery and Celeriac that stand before the first of the user's."""
    head, found, rest = traceback.partition(_HEAD)
    if not found:
        return traceback
    lines = rest.splitlines(keepends=True)
    first = next((place for place, line in enumerate(lines) if _is_users(line)), None)
    return traceback if first is None else head + _HEAD + "".join(lines[first:])


def crashed(stack: str) -> str:
    """Return what the interpreter tells of a crash (the last call first) up to the call of the task."""
    lines = stack.splitlines()
    machinery = [place for place, line in enumerate(lines) if line.startswith(_OURS)]
    users = any(_is_users(line) for line in lines[: machinery[0]]) if machinery else False
    return "\n".join(lines[: machinery[0]]) if users else stack


def _is_users(line: str) -> bool:
    return line.startswith('  File "') and not line.startswith(_OURS)


def _told(error: BaseException) -> tuple[str, str]:
    """Return an exception's type and message as its author named them."""
    if isinstance(error, UnpickleableExceptionWrapper):  # what Celery makes of one it cannot send home
        arguments = error.exc_args
        text = arguments[0] if len(arguments) == 1 else error.text.partition("\n")[0][:500]
        return error.exc_cls_name, str(text)
    try:
        return type(error).__qualname__, str(error)
    except Exception as trouble:
        return type(error).__qualname__, f"(its str() raised {type(trouble).__name__})"
