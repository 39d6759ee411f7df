"""Celery's remote control, where the ledger must have its say: revoke, terminate and rate_limit.

Registered over Celery's own commands when a node starts. `celery control`, Flower and
`app.control.broadcast` reach every worker with them; the cancel is the ledger's, so it holds for
jobs that no worker has seen, and a second worker's answer changes nothing.
"""

from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control

from celeriac.app.control import cancel_jobs
from celeriac.worker import node


def register() -> None:
    """Take the place of Celery's commands in this process."""
    control.Panel.data |= {"revoke": revoke, "terminate": terminate, "rate_limit": rate_limit}


def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    """Cancel jobs in the ledger; those that run only with `terminate`."""
    cancelled = cancel_jobs(state.app.ledger, maybe_list(task_id) or [], running=terminate)
    return control.ok(f"cancelled: {', '.join(cancelled) or 'none'}")


def terminate(state: Any, signal: Any, task_id: Any, **_: Any) -> Any:
    """Cancel jobs in the ledger, those that run as well."""
    return revoke(state, task_id, terminate=True)


def rate_limit(state: Any, task_name: str, rate_limit: Any, **_: Any) -> Any:
    """Change the pace of a task on this node."""
    answer = _rate_limit(state, task_name, rate_limit)
    held = node.this()
    held.pace.read()
    held.fetch()
    return answer


_rate_limit = control.rate_limit
