"""The tasks of jobs_for_tests, each execution of an attempt noted as it begins: what the oracle counts.

MUTANT names a promise that is broken first (faults/mutants.py).
"""

import os
import time
from typing import Any

from celery import signals

if "MUTANT" in os.environ:
    import faults.mutants  # noqa: F401
from jobs_for_tests import app, current

__all__ = ["app"]


@signals.task_prerun.connect(weak=False)
def note_execution(task_id: str, task: Any, **_: Any) -> None:
    """Append the job, its attempt and the moment, whole, whatever happens next."""
    held = task.request.get("celeriac")
    if held and "EXECUTIONS" in os.environ:
        with open(os.environ["EXECUTIONS"], "ab", buffering=0) as file:
            file.write(f"{task_id} {held['attempt']} {time.time():.6f}\n".encode())


@app.task(name="unique")
def unique(key: str) -> str:
    time.sleep(0.05)
    return key


@app.task(name="long")
def long(seconds: float) -> str:
    for _ in current.track(range(int(seconds * 20))):
        time.sleep(0.05)
    return "long"
