"""Remote control with the ledger behind it: `app.control` and `AsyncResult.revoke`.

A revoke is a cancel in the ledger, so it is durable and needs no worker. Everything else goes to
the workers as with plain Celery.
"""

from collections.abc import Iterable
from typing import Any

from celery.app.control import Control
from celery.utils.functional import maybe_list

from celeriac.access import SYSTEM
from celeriac.errors import JobFinal, JobNotFound, JobObserved
from celeriac.ledger import Asked, Ledger, cancel, read
from celeriac.states import State


class LedgerControl(Control):
    """`app.control` of an app whose jobs are in the ledger."""

    def revoke(
        self, task_id: Any, destination: Any = None, terminate: bool = False, signal: Any = None, **options: Any
    ) -> Any:
        """Cancel jobs that wait; with `terminate` also those that run. Durable, with or without workers.

        The signal is not chosen here: a running task may clean up, then it is killed. Unknown and ended jobs
        are left alone, as Celery does. With `reply=True` the answer has the form of a worker's.
        """
        cancelled = cancel_jobs(self.app.ledger, maybe_list(task_id) or [], running=terminate)
        return [{"ledger": {"ok": f"cancelled: {', '.join(cancelled) or 'none'}"}}] if options.get("reply") else None


def cancel_jobs(ledger: Ledger, ids: Iterable[str], *, running: bool) -> list[str]:
    """Cancel those of these jobs that have not ended (those that run only if asked); return their ids."""
    cancelled = []
    for id in ids:
        try:
            if running or read.summary(ledger, SYSTEM, id).state is not State.RUNNING:
                ledger.do(cancel, Asked(SYSTEM, id))
                cancelled.append(id)
        except (JobNotFound, JobFinal, JobObserved):
            continue
    return cancelled
