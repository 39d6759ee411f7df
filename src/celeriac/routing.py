"""Cost to queue: which queue a job goes to, decided from the measured size of its input.

Pure. `app.py` measures the cost with the task's own function and asks `queue_of`.
Precedence: a queue named in the submit, then this, then the task's own, then Celery's routes.
"""

from collections.abc import Mapping


def queue_of(cost: int | float, queues: Mapping[int | float | None, str]) -> str | None:
    """Return the queue with the smallest threshold that is at least `cost`.

    The key None takes whatever is above every threshold; without it such a cost has no queue
    here and None is returned.
    """
    for threshold in sorted(key for key in queues if key is not None):
        if cost <= threshold:
            return queues[threshold]
    return queues.get(None)
