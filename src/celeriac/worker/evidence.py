"""What is known of a child that died under an attempt: how, with how much memory, where it was, what it said last.

A child leaves two files in the node's folder: the stack, which the interpreter writes when a signal such
as SIGSEGV ends it, and the last lines it logged. The pool asks for them when it has reaped the child (`pool.py`), the
request tells the ledger (`request.py`). What goes through Celery's task logger joins the job's log as well, so it
survives the whole node. Nothing is written while nothing is logged.
"""

import faulthandler
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from billiard import popen_fork
from billiard.common import human_status
from celery.exceptions import WorkerLostError

from celeriac import current
from celeriac.app.redaction import Redaction
from celeriac.jobs import storable
from celeriac.worker.failures import crashed

LINES = 20
LINE_CHARACTERS = 500
STACK_CHARACTERS = 4_000
# Where the kernel counts whom it killed for want of memory: of this control group (version 2, 1), or of the machine.
COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
    Path("/proc/vmstat"),
)
_KIB = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in

_memory: dict[int, int] = {}  # the most that children took which ended otherwise than well, in bytes
_trail: "Trail | None" = None  # this child's
_hide: Callable[[str], str] = str


# In a child


class Trail:
    """What this child leaves behind."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{os.getpid()}.{kind}" for kind in ("stack", "lines")]
        self._stack, self._file = (open(path, "wb", buffering=0) for path in self._paths)  # noqa: SIM115
        self._lines: deque[str] = deque(maxlen=LINES)
        faulthandler.enable(self._stack, all_threads=False)
        logging.getLogger().addHandler(Lines(self.add))

    def begin(self) -> None:
        """Forget the attempt before."""
        if self._lines:
            self._lines.clear()
            self._write()

    def add(self, line: str) -> None:
        """Keep a line; it is there whatever happens next."""
        self._lines.append(line[:LINE_CHARACTERS])
        self._write()

    def close(self) -> None:
        """Leave nothing: the child ends well."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _write(self) -> None:
        text = "\n".join(self._lines).encode("utf-8", "replace")
        os.pwrite(self._file.fileno(), text, 0)
        os.ftruncate(self._file.fileno(), len(text))


def begin(folder: Path) -> None:
    """Begin a trail of the attempt that runs now; with the child's first attempt also the child's."""
    global _trail
    if _trail is None:
        _trail = Trail(folder)
    _trail.begin()


def end_well() -> None:
    """Leave nothing behind."""
    if _trail is not None:
        _trail.close()


def keep(line: str) -> None:
    """Let this child leave a line behind."""
    if _trail is not None:
        _trail.add(line)


class Lines(logging.Handler):
    """Takes what is logged while attempts run, without the secrets in it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            self._tell(_hide(self.format(record)))
        except Exception:
            self.handleError(record)


def listen(patterns: list[str]) -> None:
    """Let the job's log have what tasks tell Celery's task logger; `patterns` are the names that secrets go under."""
    global _hide
    _hide = Redaction(patterns).line
    logger = logging.getLogger("celery.task")
    if not any(isinstance(handler, Lines) for handler in logger.handlers):
        logger.addHandler(Lines(current.log))


# In the main process


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended: by a signal (negative) or an exit code; `memory` is the most it took, in bytes."""

    pid: int
    code: int
    memory: int = 0
    starved: bool = False
    stack: str = ""
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = human_status(self.code).replace("exitcode", "exit code")
        starved = ", probably out of memory" if self.starved else ""
        memory = f"; it had taken {self.memory / 2**20:,.0f} MiB at most" if self.memory else ""
        return f"{how}{starved}{memory}"

    def data(self) -> dict[str, Any]:
        """Return it as an event tells it."""
        told = {"pid": self.pid, "ended": str(self), "memory_bytes": self.memory, "stack": self.stack}
        return {**{name: value for name, value in told.items() if value}, "lines": list(self.lines)}


class ChildLost(WorkerLostError):
    """A child died under an attempt."""

    def __init__(self, death: Death) -> None:
        super().__init__(str(death))
        self.death = death


class Popen(popen_fork.Popen):
    """billiard's, which learns of its child what it ended with, and not what it took."""

    pid: int
    returncode: int | None

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return how the child ended, None while it runs."""
        if self.returncode is None:
            try:
                pid, status, usage = os.wait4(self.pid, flag)
            except OSError:  # reaped by somebody else
                return None
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                if self.returncode:
                    _memory[pid] = usage.ru_maxrss * _KIB
        return self.returncode


class Inquest:
    """Finds out how children died."""

    def __init__(self, counters: tuple[Path, ...] = COUNTERS) -> None:
        self._counters = counters
        self._starved = self._count()

    def death(self, folder: Path, pid: int, code: int) -> Death:
        """Return what is known of a child that died, and keep nothing of it."""
        before, self._starved = self._starved, self._count()
        stack, lines = (_taken(folder / f"{pid}.{kind}") for kind in ("stack", "lines"))
        return Death(
            pid, code, _memory.pop(pid, 0), code == -9 and self._starved > before,
            storable(crashed(stack), STACK_CHARACTERS), tuple(lines.splitlines()[-LINES:]),
        )  # fmt: skip

    def _count(self) -> int:
        for path in self._counters:
            with suppress(OSError, ValueError):
                for line in path.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0


def _taken(path: Path) -> str:
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except OSError:
        return ""
    return storable(text.strip())
