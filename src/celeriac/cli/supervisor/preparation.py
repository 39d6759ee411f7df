"""The preparation as the supervisor sees it: a child process that answers once.

`prepare` is what runs in it. The answer arrives as an event, so that Ctrl-C is heard meanwhile.
"""

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

from celeriac.cli.supervisor.plan import PYTHON
from celeriac.cli.supervisor.process import signal_group, spawn


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the preparation found and made: `trouble` is why nothing can be started, `example` a submit that fits."""

    trouble: str = ""
    example: str = ""
    copy: str = ""
    migrated: bool = False
    ticket: str = ""


class Preparation:
    """Runs `prepare` in a child, one at a time, and posts what it answers."""

    def __init__(self, post: Callable[[Prepared], None]) -> None:
        self._post = post
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether an answer is still to come."""
        return self._popen is not None

    def begin(self, environment: dict[str, str], lifeline: int, app_only: bool = False) -> None:
        """Start it; `app_only` merely checks that the app imports."""
        argv = (*PYTHON, "celeriac.cli.supervisor.prepare", *(("--app-only",) if app_only else ()))
        self._popen = spawn(argv, environment, lifeline)
        threading.Thread(target=self._wait, args=(self._popen,), name="preparation", daemon=True).start()

    def done(self) -> None:
        """Take note that the answer has come."""
        self._popen = None

    def kill(self) -> None:
        """End it at once; an empty answer still comes."""
        if self._popen:
            signal_group(self._popen.pid, signal.SIGKILL)

    def _wait(self, popen: subprocess.Popen[bytes]) -> None:
        answer, _ = popen.communicate()
        try:
            self._post(Prepared(**json.loads(answer)))
        except (ValueError, TypeError):
            self._post(Prepared(trouble=f"The preparation ended without an answer (exit code {popen.returncode})."))
