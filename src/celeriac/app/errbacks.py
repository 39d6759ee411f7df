"""`celery.errbacks`: calls the error callbacks of a job that failed where none of the app's code was at hand.

The body of a chord whose member failed, and a job that lost its workers, end inside a transaction of
the ledger (`ledger/moves/abandon.py` submits this). Each is called once, as Celery would have.
"""

from typing import Any

import msgspec
from celery.app.task import Context

from celeriac.access import SYSTEM
from celeriac.jobs import parts_of
from celeriac.ledger import read

NAME = "celery.errbacks"


def call_errbacks(self: Any, id: str) -> None:
    """Call the error callbacks of a failed job, of either style."""
    app = self.app
    job = read.job(app.ledger, SYSTEM, id)
    if job.message is None:
        return
    arguments, keywords, canvas = parts_of(job.message.body)
    meta = app.backend.get_task_meta(id)
    request = Context(
        {**msgspec.json.decode(job.message.headers), "args": arguments, "kwargs": keywords, "delivery_info": {}},
        errbacks=canvas.get("errbacks") or [],
    )
    app.backend._call_task_errbacks(request, meta["result"], meta["traceback"])


def register(app: Any) -> None:
    """Let an app's workers know it."""
    app.task(call_errbacks, name=NAME, bind=True, ignore_result=True, shared=False)
