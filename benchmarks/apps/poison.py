"""The demo's tasks, and one that ends its process."""

import os
import signal

from celeriac.demo.tasks import app


@app.task(name="poison", queue="small")
def poison() -> None:
    """Die as of kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)
