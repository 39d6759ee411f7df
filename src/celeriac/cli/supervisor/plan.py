"""What to run: an app, its worker nodes, and the command line and environment of each process.

Values in, values out; nothing here starts anything. `cli/dev.py` and `cli/demo.py` make a Plan,
the supervisor carries it out.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from celeriac.settings import Settings

# -P keeps the working directory off the path until the app is loaded: a file there named like
# a module of ours or of the standard library would be imported in its place.
PYTHON = (sys.executable, "-P", "-m")


@dataclass(frozen=True, slots=True)
class Node:
    """A worker node: its name, its queues (none: all of the app) and how many jobs it runs at once."""

    name: str
    queues: tuple[str, ...]
    concurrency: int


@dataclass(frozen=True, slots=True)
class Command:
    """One process to keep running; `follows` says whether it is started anew when the app's files change."""

    name: str
    argv: tuple[str, ...]
    grace: float
    follows: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What `dev` or `demo` (the `command`) runs; `example` is a submit that works there."""

    command: str
    settings: Settings
    app: str
    nodes: tuple[Node, ...]
    pages: Path | None = None
    reload: bool = False
    example: str = ""

    def commands(self) -> list[Command]:
        """Return the processes to run."""
        pages = ("--pages", str(self.pages)) if self.pages else ()
        web = (*PYTHON, "celeriac", "web", self.app, *pages)
        keeper = (*PYTHON, "celeriac", "keeper")
        return [
            Command("web", web, grace=6),
            *(self._worker(node) for node in self.nodes),
            Command("keeper", keeper, grace=10, follows=False),
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment of every process: ours, with the settings filled in."""
        # Nobody sends its requests elsewhere here, so nothing is gained by a drain.
        own = {"CELERIAC_APP": self.app, "CELERIAC_DRAIN_SECONDS": "0", "PYTHONUNBUFFERED": "1"}
        # glibc gives every thread an arena of its own otherwise: 10 to 20 MB in each process, for nothing.
        own["MALLOC_ARENA_MAX"] = os.environ.get("MALLOC_ARENA_MAX", "2")
        return {**os.environ, **self.settings.environment(), **own}

    def _worker(self, node: Node) -> Command:
        queues = ("-Q", ",".join(node.queues)) if node.queues else ()
        argv = (*PYTHON, "celeriac", "worker", self.app, *queues, "-c", str(node.concurrency), "-n", node.name)
        return Command(node.name, argv, grace=self.settings.shutdown_seconds + 5)
