"""The app: whether it imports, what its tasks say of themselves, and whether their queues have workers.

Looks of `celeriac check`; the app is imported once for all of them.
"""

import inspect
import shlex
from collections.abc import Iterator
from functools import cache

from celeriac.app import Celeriac, Tasks, load_app
from celeriac.cli.checks.database import existing
from celeriac.ledger import read
from celeriac.settings import Settings

Found = Iterator[tuple[str, str]]


@cache
def loaded(name: str) -> Celeriac | None:
    """Return the app of this name, None without one. Raises what is wrong with it."""
    return load_app(name) if name else None


def app(settings: Settings) -> Found:
    """It imports and has tasks."""
    found = loaded(settings.app)
    if found is None:
        yield "warning", "no app was named; say `celeriac check mymodule:app` or set CELERIAC_APP"
        return
    names = Tasks(found).names
    if names:
        yield "fine", f"{settings.app} has {len(names)} tasks: {', '.join(names)}"
    elif found.mode == "observe":
        yield "fine", f"{settings.app} is observed; its jobs are submitted and run as before"
    elif any(not name.startswith("celery.") for name in found.tasks):
        yield "warning", f"{settings.app} exposes no task over HTTP; name them: attach(app, …, expose=('mail.*',))"
    else:
        yield "warning", f"{settings.app} has no tasks; give a function @app.task"


def signatures(settings: Settings) -> Found:
    """A parameter without an annotation takes anything: whoever submits learns of a mistake from a failed job."""
    found = loaded(settings.app)
    if found is None:
        return
    names = Tasks(found).names
    bare = [name for name in names if _bare(found.tasks[name].run)]
    if bare:
        yield "warning", f"without annotations, so their arguments are not checked: {', '.join(bare)}"
    elif names:
        yield "fine", "every parameter of every task is annotated"


def _bare(function: object) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return any(parameter.annotation is parameter.empty for parameter in parameters if parameter.name != "self")


def workers(settings: Settings) -> Found:
    """Somebody works on each queue that the tasks lead to."""
    found, ledger = loaded(settings.app), existing(settings)
    if found is None or ledger is None:
        return
    heard = {queue for worker in read.all_workers(ledger) if worker.online for queue in worker.queues}
    if not heard:
        yield "warning", f"no worker is online. Start one: celeriac worker {settings.app}"
        return
    forlorn = [queue for queue in Tasks(found).queues if queue not in heard]
    for queue in forlorn:
        yield "warning", f"tasks lead to {queue!r} and no worker listens to it. Start one with -Q {shlex.quote(queue)}"
    if not forlorn:
        yield "fine", "every queue that the tasks lead to has a worker"


LOOKS = {"app": app, "signatures": signatures, "workers": workers}
