"""The cost of a job's input, as the task itself measures it, and the queue that follows from it.

Used by the sender for `.delay()` and by `tasks` for HTTP, so that both take the same way.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.errors import Fault, InvalidArguments
from celeriac.routing import queue_of

_LARGEST = 2**62


def cost_of(task: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> float | None:
    """Return the cost of these arguments, or None for a task that does not measure.

    Raises:
        InvalidArguments: when the task's own function fails on them.
    """
    measure = getattr(task, "cost", None)
    if measure is None:
        return None
    try:
        cost = float(measure(*arguments, **keywords))
        if not math.isfinite(cost):
            raise ValueError(f"the cost is {cost}")
    except Exception as error:
        why = f"the cost of these arguments cannot be measured: {type(error).__name__}: {error}"
        raise InvalidArguments.of([Fault("/args", why)]) from None
    return cost


def as_column(cost: float | None) -> int | None:
    """Return a cost as the ledger keeps it: whole, rounded up."""
    return None if cost is None else min(math.ceil(cost), _LARGEST)


def queue_for(task: Any, cost: float | None) -> str | None:
    """Return the queue a task chooses: by its cost, or else its own; None leaves it to Celery's routes."""
    queues = getattr(task, "queues", None)
    by_cost = queue_of(cost, queues) if queues and cost is not None else None
    return by_cost or getattr(task, "own_queue", None)


def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> dict[str, str] | None:
    """Route a message as one of Celery's routers does; a queue named in the call wins over it."""
    if task is None or (options or {}).get("queue"):
        return None
    queue = queue_for(task, cost_of(task, args or (), kwargs or {}))
    return {"queue": queue} if queue else None
