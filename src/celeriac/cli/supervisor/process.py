"""One supervised process and where it is in its life: running, stopping, waiting for its next start.

It leads a session of its own, so the terminal's Ctrl-C reaches only the supervisor, and a kill
reaches all it has forked. Its output goes to the screen line by line; its end becomes an event.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from celeriac import clock
from celeriac.cli.supervisor.lifeline import VARIABLE
from celeriac.cli.supervisor.plan import Command

LONGEST_BACKOFF = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of this name and id has ended; a negative code is the signal that killed it."""

    name: str
    pid: int
    code: int


class Process:
    """A command that is started, stopped, and started again; driven by the supervisor's loop alone.

    `start_at` and `kill_at` are moments of the monotonic clock at which the loop has to act.
    """

    def __init__(self, command: Command, line: Callable[[str, str], None], post: Callable[[Ended], None]) -> None:
        self.command = command
        self.name = command.name
        self.start_at: float | None = None
        self.kill_at: float | None = None
        self.stopping = False
        self.wanted = True
        self._line = line
        self._post = post
        self._popen: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started_at = 0.0
        self._backoff = 1.0

    @property
    def pid(self) -> int | None:
        """The id of the running process, or None."""
        return self._popen.pid if self._popen else None

    def start(self, environment: dict[str, str], lifeline: int) -> None:
        """Start it now."""
        self.start_at = None
        self._popen = spawn(self.command.argv, environment, lifeline, merged=True)
        self._started_at = clock.monotonic()
        self._reader = threading.Thread(target=self._read, args=(self._popen.stdout,), daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, args=(self._popen,), daemon=True).start()

    def stop(self, again: bool = False) -> None:
        """Ask it to end, and with `again` to start anew after that; `kill_at` is when its grace is over."""
        self.wanted = again
        if self._popen is None:
            self.start_at = clock.monotonic() if again else None
        elif not self.stopping:
            self.stopping = True
            self.kill_at = clock.monotonic() + self.command.grace
            signal_group(self._popen.pid, signal.SIGTERM, leader_only=True)

    def kill(self) -> None:
        """End it and all it has forked at once."""
        self.kill_at = None
        if self._popen:
            self.stopping = True
            signal_group(self._popen.pid, signal.SIGKILL)

    def ended(self) -> float | None:
        """Take note that it has ended; return in how many seconds it starts again, None for never.

        After a stop that is at once; after a death 1, 2, 4 … 30 seconds, and 1 again after a long life.
        """
        asked, self.stopping, self.kill_at, self._popen = self.stopping, False, None, None
        if not self.wanted:
            return None
        if clock.monotonic() - self._started_at > LONGEST_BACKOFF:
            self._backoff = 1.0
        delay = 0.0 if asked else self._backoff
        if not asked:
            self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)
        self.start_at = clock.monotonic() + delay
        return delay

    def drain(self) -> None:
        """Wait a moment for the last lines of its output."""
        if self._reader:
            self._reader.join(timeout=1)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._line(self.name, line.decode("utf-8", "replace").rstrip("\r\n"))

    def _wait(self, popen: subprocess.Popen[bytes]) -> None:
        code = popen.wait()
        signal_group(popen.pid, signal.SIGKILL)  # what it forked does not outlive it
        self._post(Ended(self.name, popen.pid, code))


def spawn(
    argv: tuple[str, ...], environment: dict[str, str], lifeline: int, merged: bool = False
) -> subprocess.Popen[bytes]:
    """Start a child that leads a session of its own and holds the lifeline; `merged` puts stderr into stdout."""
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merged else None,
        env={**environment, VARIABLE: str(lifeline)}, pass_fds=(lifeline,), start_new_session=True,
    )  # fmt: skip


def signal_group(pid: int, number: signal.Signals, leader_only: bool = False) -> None:
    """Send a signal to the group a process leads, or to it alone; one that is gone is no error."""
    with suppress(OSError):
        (os.kill if leader_only else os.killpg)(pid, number)
