"""Jobs that run in the test's own process, as soon as they are submitted, on a ledger that ends with the block.

The ledger is a real one, and so are the moves; retries, chains and chords do what they do in a worker.
Time is the test's: `Jobs.advance` makes it pass. Next: worker/inline.py.
"""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app.application import Owned
from celeriac.errors import CannotStart
from celeriac.jobs import Filter, Job
from celeriac.ledger import Ledger, close_ledger, migrations, read
from celeriac.settings import load
from celeriac.states import FINAL, State
from celeriac.worker.inline import Inline


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as a test sees it: values in place of JSON, and its error as `Type: message`."""

    id: str
    task: str
    state: State
    queue: str
    args: Any
    result: Any
    error: str | None
    attempt: int
    progress: float | None
    tags: tuple[str, ...]


class Jobs:
    """What `inline` gives: the jobs of the block, and its clock.

    With `raises` the exception of a task that fails for good is raised where the job was submitted.
    """

    def __init__(self, runner: Inline) -> None:
        self._runner = runner
        self._ledger = runner.app.ledger

    @property
    def raises(self) -> bool:
        """Whether a failing task fails the test."""
        return self._runner.raises

    @raises.setter
    def raises(self, raises: bool) -> None:
        self._runner.raises = raises

    @property
    def ended(self) -> list[Seen]:
        """The jobs that have ended, in the order of their ends."""
        return [self.job(id) for id in self._runner.ended]

    @property
    def waiting(self) -> list[Seen]:
        """The jobs that wait, for their time or for a task that this app does not have; oldest first."""
        states = tuple(state for state in State if state not in FINAL)
        found, after = [], None
        while True:
            page, after = read.page(self._ledger, SYSTEM, Filter(states=states), after, 200)
            found += [job.id for job in page]
            if after is None:
                return [self.job(id) for id in reversed(found)]

    def job(self, id: str) -> Seen:
        """Return a job. Raises JobNotFound."""
        return _seen(read.job(self._ledger, SYSTEM, id))

    def events(self, id: str) -> list[tuple[str, Any]]:
        """Return the history of a job: kind and data of each event."""
        events = read.history(self._ledger, SYSTEM, id, 0, 10_000)
        return [(event.kind, event.data and json.loads(event.data)) for event in events]

    def logs(self, id: str) -> list[str]:
        """Return the log lines of a job."""
        return [data["text"] for kind, data in self.events(id) if kind == "log"]

    def advance(self, seconds: float) -> None:
        """Let time pass, and run what falls due on the way: delayed jobs, retries, expiries."""
        self._runner.advance(clock.micros() + int(seconds * 1_000_000))

    def run_all(self) -> None:
        """Let time pass until nothing waits for its time any more."""
        self._runner.advance(None)


@contextmanager
def inline(app: Any, *, raises: bool = False) -> Iterator[Jobs]:
    """Run what `app` submits in this process, on an empty ledger of its own; gives the Jobs.

    A job runs before `.delay()` returns, one after the other; a job that a task submits runs after that task.
    Raises CannotStart for an app whose jobs do not live in a ledger.
    """
    if not isinstance(app, Owned):
        raise CannotStart(
            f"{app!r} publishes to a broker of its own, so its jobs cannot run inline. "
            'Make it with `Celeriac(...)`, or attach it with `mode="own"`.'
        )
    owned: Any = app
    shifted = clock.shifted()
    with tempfile.TemporaryDirectory(prefix="celeriac-") as home, _settings(app, Path(home)):
        shutil.copy(_blank(), Path(home) / "ledger.db")
        runner = Inline(owned)
        runner.raises = raises
        try:
            with runner.running():
                yield Jobs(runner)
        finally:
            clock.shift((shifted - clock.shifted()) // clock.MICROSECOND)
            owned.backend.result_consumer.stop()
            close_ledger(owned.settings.ledger_url)


@contextmanager
def _settings(app: Any, home: Path) -> Iterator[None]:
    """Make an app, and whoever else reads the settings in this process, find the ledger in `home`."""
    own = {"CELERIAC_HOME": str(home), "CELERIAC_DATABASE_URL": f"sqlite:///{home / 'ledger.db'}"}
    before = {name: os.environ.get(name) for name in own}
    settings = app.__dict__.pop("settings", None)
    os.environ.update(own)
    app.__dict__["settings"] = load().model_copy(update={"broker_url": ""})  # nobody else shall hear of these jobs
    try:
        yield
    finally:
        app.__dict__.pop("settings", None)
        if settings is not None:
            app.__dict__["settings"] = settings
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@cache
def _blank() -> Path:
    """Make an empty ledger once in this process; each block works on a copy."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    migrations.upgrade(ledger)
    ledger.close()
    return folder / "ledger.db"


def _seen(job: Job) -> Seen:
    failure, progress = job.failure, job.progress
    return Seen(
        job.id, job.task, job.state, job.queue, json.loads(job.args), job.result and json.loads(job.result),
        f"{failure.type or failure.code}: {failure.message}" if failure else None,
        job.attempt, progress.value if progress else None, job.tags,
    )  # fmt: skip
