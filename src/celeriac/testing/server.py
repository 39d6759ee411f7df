"""A real instance for a test: `celeriac dev` with its web process, worker and keeper, in a folder of its own.

Takes about three seconds to start, so share one among many tests. It is found over HTTP like any other;
nothing of it is left when the block ends.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from celeriac.client import Client, ClientError, Unreachable
from celeriac.errors import CannotStart

LOOK_SECONDS = 0.1
SHUTDOWN_SECONDS = 2


@contextmanager
def instance(app: str, *, concurrency: int = 2, timeout: float = 60, **settings: object) -> Iterator[Client]:
    """Run the app `module:attribute` in real processes until the block ends; gives a Client of them.

    More settings go by their names: `instance("shop:app", max_deaths=1)`.
    Raises CannotStart, with what the processes said, when no worker is there after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="celeriac-") as folder:
        home = Path(folder)
        process = _start(app, home, concurrency, settings)
        try:
            with _ready(process, home, timeout) as client:
                yield client
        finally:
            _stop(process)


def _start(app: str, home: Path, concurrency: int, settings: dict[str, object]) -> "subprocess.Popen[bytes]":
    named = {f"CELERIAC_{name.upper()}": str(value) for name, value in settings.items()}
    elsewhere = ("CELERIAC_DATABASE_URL", "CELERIAC_BROKER_URL")
    clean = {name: value for name, value in os.environ.items() if name not in elsewhere}
    path = os.pathsep.join(filter(None, sys.path))  # the app may live where only the test runner looks
    command = ["dev", app, "--no-reload", "--port", "0", "--home", str(home), "-c", str(concurrency)]
    # To a file: a pipe that nobody empties would stop the processes in the middle of a long test.
    with open(home / "output", "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "celeriac", *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**clean, "PYTHONPATH": path, "CELERIAC_SHUTDOWN_SECONDS": str(SHUTDOWN_SECONDS), **named},
        )  # fmt: skip


def _ready(process: "subprocess.Popen[bytes]", home: Path, timeout: float) -> Client:
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, ValueError, KeyError, ClientError, Unreachable):
            client = Client(json.loads((home / "lock").read_text())["url"], (home / "token").read_text().strip())
            if any(worker["online"] for worker in client.workers()):
                return client
            client.close()
        time.sleep(LOOK_SECONDS)
    raise CannotStart(f"The instance did not start:\n{(home / 'output').read_text(errors='replace')}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(SHUTDOWN_SECONDS + 15)
    except subprocess.TimeoutExpired:
        process.kill()  # its processes notice, see cli/supervisor/lifeline.py
        process.wait()
