"""Starts processes of ours quickly: a process that has imported everything, and forks one for each that is asked for.

What a new interpreter imports costs a second of CPU; runs that kill hundreds of processes cannot pay that. The child
runs the real command line. `Nursery` is the test's side, `main` the other; they speak JSON lines.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from celeriac import failpoints

PRELOADED = (
    "celery.apps.worker", "celery.bin.worker", "celery.concurrency.prefork", "celery.worker.autoscale", "psycopg",
    "celeriac.cli.group", "celeriac.cli.worker", "celeriac.cli.keeper", "celeriac.cli.web", "celeriac.keeper.loop",
    "celeriac.testing", "celeriac.web.app", "celeriac.web.server", "celeriac.worker.main", "celeriac.worker.pool",
    "celeriac.worker.request", "celeriac.worker.steps", "celeriac.transport.transport", "celeriac.worker.backend",
)  # fmt: skip


class Process:
    """As much of `subprocess.Popen` as tests need, for a process that is not our own child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.ended = threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """Forks processes that run `celeriac <arguments>`, or with a name for `module` the function `main` there."""

    def __init__(self) -> None:
        here = Path(__file__)
        paths = [str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._server = subprocess.Popen(
            [sys.executable, "-W", "default", here], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._answers: list[Process] = []
        self._born = threading.Semaphore(0)
        self._processes: dict[int, Process] = {}
        self._reader = threading.Thread(target=self._read, name="nursery", daemon=True)
        self._reader.start()

    def start(
        self, arguments: list[str], environment: dict[str, str], cwd: Path, log: Path, module: str = "celeriac.cli"
    ) -> Process:
        """Start a process in a session of its own; its output is appended to `log`."""
        asked = {
            "arguments": arguments, "environment": environment, "cwd": str(cwd), "log": str(log), "module": module
        }  # fmt: skip
        with self._lock:
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(asked) + "\n")
            self._server.stdin.flush()
            self._born.acquire()
            return self._answers.pop()

    def _read(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            told = json.loads(line)
            if "born" in told:
                process = self._processes[told["born"]] = Process(told["born"])
                self._answers.append(process)
                self._born.release()
            else:
                process = self._processes.pop(told["ended"])
                process.returncode = told["code"]
                process.ended.set()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._reader.join(10)
        assert self._server.stdout is not None
        self._server.stdout.close()


def main() -> None:
    """Fork whatever the lines of stdin ask for, and tell of births and ends on stdout."""
    for name in PRELOADED:
        importlib.import_module(name)

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [], 1)
        if woken in ready:
            os.read(woken, 4096)
        _tell_ends()
        if 0 in ready:
            data = os.read(0, 1 << 20)
            if not data:
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                pid = os.fork()
                if not pid:
                    os.close(woken)
                    os.close(wake)
                    _become(**json.loads(line))
                _tell(born=pid)


def _tell_ends() -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(ended=found[0], code=os.waitstatus_to_exitcode(found[1]))


def _tell(**told: Any) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def _become(arguments: list[str], environment: dict[str, str], cwd: str, log: str, module: str) -> None:
    """Be the process that was asked for; never return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.closerange(3, 64)
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        os.chdir(cwd)
        sys.argv = ["celeriac", *arguments]
        sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(":") if path not in sys.path]
        failpoints.arm(os.environ.get("CELERIAC_FAILPOINT", ""))
        importlib.import_module(module).main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
