"""A private Celeriac: its own home and port, started with the command line as anyone would.

`Instance` sets up the database and a token and starts single processes; `demo` starts everything
with one command.
"""

import contextlib
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import PYTHON, Process, clean, free_port, stopping, until
from benchmarks.wire import Client

APP = "celeriac.demo.tasks:app"
JOBS = "/api/v1/jobs"


class Instance:
    """One home folder, the processes on it, and clients for them."""

    def __init__(self, home: Path, processes: list[Process], **environment: str) -> None:
        self.home = home
        self.port = free_port()
        self.app = APP
        self.token = ""
        self.processes = processes
        self.environment = {"CELERIAC_HOME": str(home), "CELERIAC_PORT": str(self.port), **environment}

    @property
    def ledger(self) -> Path:
        """The database file."""
        return self.home / "ledger.db"

    def set_up(self) -> None:
        """Make the database and a token."""
        self.command("migrate")
        self.token = self.command("token", "create", "benchmark", "--role", "admin").strip()

    def command(self, *arguments: str) -> str:
        """Run a command to its end and return what it printed."""
        return subprocess.run(
            [PYTHON, "-P", "-m", "celeriac", *arguments], env=clean(self.environment), cwd=self.home, check=True,
            capture_output=True, text=True,
        ).stdout  # fmt: skip

    def start(self, name: str, *arguments: str) -> Process:
        """Start a command that goes on."""
        return self.start_python(name, PYTHON, "-P", "-m", "celeriac", *arguments)

    def start_python(self, name: str, *argv: str) -> Process:
        """Start a program of the benchmark's with the instance's environment."""
        process = Process(name, argv, self.home, self.environment)
        self.processes.append(process)
        return process

    def web(self) -> Process:
        """Start a web process and wait until it answers."""
        process = self.start("web", "web", self.app)
        until(lambda: self.answers(process), "the web process")
        return process

    def worker(self, queue: str = "small", concurrency: int = 2) -> Process:
        """Start a worker node."""
        return self.start(f"worker-{queue}", "worker", self.app, "-Q", queue, "-c", str(concurrency), "-n", queue)

    def client(self) -> Client:
        """Return a client with the instance's token."""
        return Client(self.port, self.token)

    def answers(self, process: Process) -> bool:
        """Say whether web is there."""
        process.check()
        with contextlib.suppress(OSError):
            return Client(self.port).ask("GET", "/healthz").status == 200
        return False

    def commits(self) -> int:
        """Return the counter that SQLite raises with each commit (wal-index header, `iChange`)."""
        with open(f"{self.ledger}-shm", "rb") as index:
            counter: int = struct.unpack("=I", index.read(12)[8:])[0]
            return counter

    def stop(self, process: Process) -> None:
        """End one process now."""
        process.stop()
        self.processes.remove(process)


@contextlib.contextmanager
def instance(set_up: bool = True, **environment: str) -> Iterator[Instance]:
    """Give an instance in a temporary home, and end everything it started."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder, stopping([]) as processes:
        made = Instance(Path(folder), processes, **environment)
        if set_up:
            made.set_up()
        yield made
