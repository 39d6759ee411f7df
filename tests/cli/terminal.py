"""A terminal for tests: runs the real `celeriac` in a folder of its own, types Ctrl-C, reads what it prints.

`until` is the one way to wait: it asks again and again, up to a deadline that only a failure reaches.
"""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

Answer = TypeVar("Answer")
DEADLINE_SECONDS = 60.0
CELERIAC = (sys.executable, "-P", "-m", "celeriac")


def until(question: Callable[[], Answer], hoped: str) -> Answer:
    """What the question answers as soon as that is true; fails saying what was hoped for."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{hoped}: not within {DEADLINE_SECONDS:.0f} s"
        pause(0.02)
    return answer


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def environment(**variables: str) -> dict[str, str]:
    """The environment without anybody's own settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CELERIAC_")}
    return {**clean, **variables}


class Screen:
    """What a command sees as a terminal; keeps what is written there. It is read all the time, so nobody waits."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while more := os.read(self._ours, 65536):
                self._shown.extend(more)
        except OSError:  # so Linux tells that nobody writes to it any more
            pass
        os.close(self._ours)

    @property
    def text(self) -> str:
        """Everything so far, without colours and moves of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._shown.decode(errors="replace"))

    def end(self) -> None:
        """Waits until everything is read; whoever writes to it has ended."""
        self._reader.join(DEADLINE_SECONDS)


class Terminal:
    """One running command. It leads a process group, as a shell's foreground job does.

    Its output goes to files; with `screen` what is for people goes to a terminal, on which bars are drawn.
    """

    def __init__(
        self, folder: Path, *words: str, before: tuple[str, ...] = CELERIAC, screen: bool = False, **variables: str
    ) -> None:
        self.folder = folder
        self._out, self._err = folder / f"{id(self)}.out", folder / f"{id(self)}.err"
        self._screen = Screen() if screen else None
        with self._out.open("w") as out, self._err.open("w") as err:
            self._popen = subprocess.Popen(
                (*before, *words), cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=out,
                stderr=self._screen.theirs if self._screen else err, start_new_session=True,
            )  # fmt: skip
        if self._screen:
            os.close(self._screen.theirs)
        self._seen: set[psutil.Process] = set()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._screen.text if self._screen else self._err.read_text()

    @property
    def all(self) -> str:
        return self.out + self.err

    def shows(self, pattern: str) -> re.Match[str]:
        """Waits until the output holds the pattern."""

        def question() -> re.Match[str] | None:
            found = re.search(pattern, self.all)
            if not found:
                assert self._popen.poll() is None, f"ended before it showed {pattern!r}:\n{self.all}"
            return found

        try:
            return until(question, f"{pattern!r} is shown")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.all}") from None

    def family(self) -> list[psutil.Process]:
        """All processes below this one, which `end` expects to be gone."""
        try:
            below = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen.update(below)
        return below

    def process(self, title: str) -> psutil.Process | None:
        """The process whose command line holds this, if there is one."""
        for process in self.family():
            try:
                if title in " ".join(process.cmdline()):
                    return process
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return None

    def ctrl_c(self) -> None:
        """What the terminal does: SIGINT to the whole foreground group."""
        self.family()
        os.killpg(self.pid, signal.SIGINT)

    def send(self, number: int) -> None:
        self.family()
        self._popen.send_signal(number)

    def end(self) -> int:
        """Waits until it has ended and nothing of it is left; the exit code."""
        until(lambda: self._popen.poll() is not None, "the end of the command")
        until(lambda: not any(alive(process) for process in self._seen), "the end of all processes below it")
        if self._screen:
            self._screen.end()
        return self._popen.returncode

    def close(self) -> None:
        """Leaves nothing behind, whatever the test found."""
        below = self.family()
        self._popen.kill()
        self._popen.wait()
        for process in [*below, *self._seen]:
            if alive(process):
                process.kill()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(folder: Path, *words: str, input: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        (*CELERIAC, *words), cwd=folder, env=environment(**variables), input=input, capture_output=True, text=True,
        timeout=DEADLINE_SECONDS,
    )  # fmt: skip


def json_of(text: str) -> list[dict[str, object]]:
    """One JSON value for each line."""
    return [json.loads(line) for line in text.splitlines()]
