"""Programs of the revision before, as they were: taken from the history of this repository and run as they are.

Where there is no history (an unpacked archive, a shallow clone) there are none, and the tests of them are skipped.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from instance import FAST, free_port

ROOT = Path(__file__).parent.parent.parent
FIRST = "src/celeriac/ledger/migrations/versions/r0003_fair_claims.py"
APP = """
from celeriac import Celeriac
app = Celeriac("both")
@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y
"""


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=True).stdout


def unpack(folder: Path) -> bool:
    """Unpack the last version before revision 0003 into a folder; say whether there is a history to take it from."""
    try:
        added = _git("log", "--diff-filter=A", "--format=%H", "--", FIRST).split()
        archive = _git("archive", f"{added[-1].decode()}^" if added else "HEAD", "src")
    except (OSError, subprocess.CalledProcessError):
        return False
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return True


class Previous:
    """Processes of the version before on one database."""

    def __init__(self, source: Path, home: Path, database_url: str) -> None:
        home.mkdir()
        (home / "both.py").write_text(APP)
        self.home = home
        self.url = database_url
        self.port = free_port()
        self._environment = {
            **os.environ, **FAST, "PYTHONPATH": f"{source / 'src'}:{home}", "CELERIAC_HOME": str(home),
            "CELERIAC_DATABASE_URL": database_url, "CELERIAC_PORT": str(self.port),
        }  # fmt: skip
        del self._environment["CELERIAC_DRAIN_SECONDS"]
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str) -> str:
        """Run a command to its end; return what it prints."""
        command = [sys.executable, "-m", "celeriac", *arguments]
        done = subprocess.run(command, env=self._environment, cwd=self.home, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def start(self, *arguments: str) -> None:
        """Start a process; what it says goes to the file `previous.log`."""
        command = [sys.executable, "-m", "celeriac", *arguments]
        with open(self.home / "previous.log", "ab") as log:
            self.processes.append(
                subprocess.Popen(command, env=self._environment, cwd=self.home, stdout=log, stderr=log)
            )

    def stop(self) -> None:
        """End every process as a deployment does."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)
        self.processes.clear()
