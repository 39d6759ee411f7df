"""Processes of a benchmark: start one, wait for it, read the CPU and memory of its tree, end it.

Every stack keeps its files in a temporary folder of its own. Waiting is polling with a deadline.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable


class Process:
    """A program and all its descendants; what it prints goes to `<folder>/<name>.log`."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                argv, cwd=folder, env=clean(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self._name = name

    def tree(self) -> list[psutil.Process]:
        """Return the process and its living descendants."""
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise RuntimeError(f"{self._name} ended. {self._told()}") from None

    def cpu(self) -> float:
        """Return the CPU seconds, user and system, that the tree has used, ended children included."""
        seconds = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
        return seconds

    def check(self) -> None:
        """Fail with what it printed if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._name} ended with {self._process.returncode}. {self._told()}")

    def pause(self) -> None:
        """Stop the whole tree where it is."""
        for process in self.tree():
            process.suspend()

    def resume(self) -> None:
        """Let the tree go on."""
        for process in reversed(self.tree()):
            process.resume()

    def stop(self, seconds: float = 15) -> None:
        """Ask it to end, then end it and what it left."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _told(self) -> str:
        return f"It said: {self.log.read_text(errors='replace')[-2000:]}"


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without Celeriac's own variables, plus these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CELERIAC_")}
    return {**kept, "PYTHONPATH": str(ROOT), **environment}


def cpu(processes: Iterable[Process]) -> float:
    """Return the CPU seconds of several trees."""
    return sum(process.cpu() for process in processes)


def memory(processes: Iterable[Process]) -> dict[str, float]:
    """Return the memory of several trees in MB: RSS counts shared pages again and again, PSS once."""
    found = [member.memory_full_info() for process in processes for member in process.tree()]
    return {
        "processes": len(found),
        "rss": sum(one.rss for one in found) / 1e6,
        "pss": sum(one.pss for one in found) / 1e6,
    }


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], object], what: str, seconds: float = 60, pause: float = 0.02) -> float:
    """Wait until a condition holds; return the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"Waited {seconds:.0f} s for {what}.")
        time.sleep(pause)
    return time.monotonic() - began


@contextlib.contextmanager
def stopping(processes: list[Process]) -> Iterator[list[Process]]:
    """End the processes in this list, the newest first, whatever happens."""
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.stop()
