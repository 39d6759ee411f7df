"""The worker: Celery's own, with claims before user code and every outcome in one place.

`run` starts a node. In its main process `node` claims and records, `request` follows each
attempt, `cancel` ends it when asked. In the pool's children `capture` runs the task and
carries what Celery would have stored or sent back over the pool's own pipe (`pool`); no
child opens a database for that. `backend` is Celery's result backend, read by anybody.
`docs/tour.md` follows one job through the files.
"""

from celeriac.worker.main import run

__all__ = ["run"]
