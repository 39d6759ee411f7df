"""The processes of a run: kept alive, killed, frozen, told to end, each counted.

Two webs, two workers, two keepers and two programs that submit. Whoever is dead is started again, each time with other
failpoints, so that it dies at a place of its own choice a little later. Used by run.py.
"""

import contextlib
import json
import math
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass

import psutil
from instance import free_port

from celeriac.failpoints import NAMES
from faults.setups import Setup

CONCURRENCY = 3
# Where connections break.
BREAKS = (
    "before-commit", "after-commit", "before-publish", "after-publish", "after-receive", "before-ack", "after-ack",
)  # fmt: skip
# Which places each kind of process passes; see failpoints.NAMES.
PASSES = {
    "web": ("any", "sender"),
    "worker": ("any", "worker", "child", "sender", "consumer"),
    "keeper": ("any", "keeper", "sender"),
    "load": ("any", "sender"),
}
# How often each is killed. A keeper seldom: each new one looks at the workers for a whole lease before it rescues.
OFTEN = {"web": 3, "worker": 6, "keeper": 1, "load": 2}
STOP_SECONDS = 30


@dataclass(frozen=True)
class Hurt:
    """A worker process was killed or told to end, or stood still until it went on; times as of `time.time()`."""

    pid: int
    at: float
    until: float = math.inf


class Cast:
    """All processes of a run on one set-up."""

    def __init__(self, stage: Setup, dice: random.Random, pace: float, errors: float, kills: float = 0.01) -> None:
        self.house = stage.house
        self.killed: Counter[str] = Counter()  # by kind of process and way: what it cost
        self.wrong: list[str] = []
        self.hurts: list[Hurt] = []  # what befell workers
        self.armed = True
        self.gave_up = 0  # processes that could not start, without the ledger or their children, and said so
        self._dice = dice
        self._errors, self._kills = errors, kills
        self._stage = stage
        self._ports = {name: free_port() for name in ("web-1", "web-2")}
        self._names = [f"{kind}-{number}" for kind in PASSES for number in (1, 2)]
        self._points: dict[str, str] = {}
        self._ours: set[int] = set()  # processes that we have killed
        self._lock = threading.RLock()
        self._tending = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked_at = time.time()  # whoever is found dead was seen alive then
        self._load = {
            "ACKNOWLEDGED": str(self.house.home / "acknowledged"), "ADMIN": self.house.token, "PACE": str(pace),
            "PORTS": json.dumps(list(self._ports.values())), "SEED": str(dice.random()),
        }  # fmt: skip
        self.house.environment |= {"EXECUTIONS": str(self.house.home / "executions"), "CELERIAC_MAX_DEATHS": "1000"}

    def begin(self, *kinds: str) -> None:
        """Start every process of these kinds (or all), and begin to replace those that die."""
        self._names = [name for name in self._names if not kinds or _kind(name) in kinds]
        for name in self._names:
            self._start(name)
        self._tending.set()
        self._thread = threading.Thread(target=self._tend, name="cast")
        self._thread.start()

    def end(self) -> None:
        """Kill whoever there is; replace nobody any more."""
        self._tending.clear()
        if self._thread is not None:
            self._thread.join()
        self.kill_all()
        for process in self.house.processes.values():
            process.wait(30)
        self.house.processes.clear()

    def stop(self) -> None:
        """Tell everyone to end in good order; who does not is a fault."""
        self._tending.clear()
        if self._thread is not None:
            self._thread.join()
        for process in self.house.processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in list(self.house.processes.items()):
            self._await(name, process)
        self.house.processes.clear()

    def _await(self, name, process) -> None:
        try:
            code = process.wait(STOP_SECONDS)
            if code not in (0, -signal.SIGTERM):
                self.wrong.append(f"{name} ended with {code}: {self.house.log(name)[-700:]}")
        except Exception:
            self.wrong.append(f"{name} did not stop within {STOP_SECONDS} s: {self.house.log(name)[-700:]}")
            process.send_signal(signal.SIGKILL)

    # Starting

    def _start(self, name: str) -> None:
        kind = _kind(name)
        words = self._failpoints(name)
        environment = {"CELERIAC_FAILPOINT": words} if words else {}
        if kind == "web":
            self.house.start(name, "web", self.house.app, CELERIAC_PORT=str(self._ports[name]), **environment)
        elif kind == "worker":
            self.house.worker(name, concurrency=CONCURRENCY, wait=False, **environment)
        elif kind == "keeper":
            self.house.keeper(name, **environment)
        else:
            self.house.program(name, "faults.load", "3", **{**self._load, **environment})

    def _failpoints(self, name: str) -> str:
        """Choose where a process dies by itself, and how often its connection breaks."""
        if not self.armed:
            return ""
        words = []
        if self._dice.random() < 0.7 and self._kills:
            places = [place for place, who in NAMES.items() if who in PASSES[_kind(name)]]
            self._points[name] = place = self._dice.choice(places)
            chance = self._kills * self._dice.choice((0.3, 1, 3)) * (1 if place.endswith("commit") else 5)
            words.append(f"{place}:kill:{chance:.4f}")
        if self._errors:
            # What a keeper cannot write makes it wait a whole lease anew, or it would rescue in an outage.
            rate = self._errors / 10 if _kind(name) == "keeper" else self._errors
            words += [f"{place}:error:{rate}" for place in BREAKS if not words or not words[0].startswith(place)]
        return ",".join(words)

    def _tend(self) -> None:
        while self._tending.is_set():
            looked_at = time.time()
            for name in self._names:
                with self._lock:
                    process = self.house.processes.get(name)
                    if process is not None and process.poll() is None:
                        continue
                    if process is not None:
                        self._note_end(name, process)
                    if self._tending.is_set():
                        self._start(name)
            self._looked_at = looked_at
            time.sleep(0.05)

    def _note_end(self, name: str, process) -> None:
        if process.pid in self._ours:
            return
        if process.returncode == -signal.SIGKILL and name in self._points:
            self.killed[f"{_kind(name)} at a failpoint"] += 1
            if _kind(name) == "worker":
                self.hurts.append(Hurt(process.pid, self._looked_at))
        elif _gave_up(self.house.log(name)):
            self.gave_up += 1
        else:
            self.wrong.append(f"{name} ended by itself with {process.returncode}: {self.house.log(name)[-700:]}")

    # Hurting

    def kill_one(self) -> None:
        """Kill a process, or a child of a worker's pool."""
        name = self._dice.choices(self._names, [OFTEN[_kind(name)] for name in self._names])[0]
        with self._lock:
            process = self.house.processes.get(name)
            if process is None or process.poll() is not None:
                return
            children = self._children(process.pid) if _kind(name) == "worker" else []
            if children and self._dice.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._dice.choice(children), signal.SIGKILL)
                self.killed["child"] += 1
                return
            self._ours.add(process.pid)
            self._hurts(name, process)
            process.send_signal(signal.SIGKILL)
            self.killed[_kind(name)] += 1

    def kill_all(self) -> None:
        """Kill everybody at the same moment, as a machine that loses its power does."""
        with self._lock:
            for name, process in self.house.processes.items():
                if process.poll() is None:
                    self._ours.add(process.pid)
                    self.killed[_kind(name)] += 1
                    self._hurts(name, process)
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    def restart_one(self) -> None:
        """Tell a process to end, as a rolling deployment does."""
        name = self._dice.choice([name for name in self._names if _kind(name) != "load"])
        with self._lock:
            process = self.house.processes.get(name)
            if process is None or process.poll() is not None:
                return
            self._ours.add(process.pid)
            self._hurts(name, process)
            process.send_signal(signal.SIGTERM)
            self.killed[f"{_kind(name)} told to end"] += 1

    @contextlib.contextmanager
    def frozen(self, kind: str):
        """Stop a process of a kind, with its children, and let it go on."""
        name = f"{kind}-{self._dice.choice((1, 2))}"
        with self._lock:
            process = self.house.processes.get(name)
        if process is None or process.poll() is not None:
            yield
            return
        began = time.time()
        _signal_all(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if kind == "worker":
                self.hurts.append(Hurt(process.pid, began, time.time()))
            _signal_all(process.pid, signal.SIGCONT)

    def _hurts(self, name: str, process) -> None:
        if _kind(name) == "worker":
            self.hurts.append(Hurt(process.pid, time.time()))

    @staticmethod
    def _children(pid: int) -> list[int]:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []

    def points(self) -> dict[str, int]:
        """Return how many processes died at each failpoint."""
        return dict(Counter(self._told(r"Failpoint (\S+) kills")))

    def errors_injected(self) -> dict[str, int]:
        """Return how often each failpoint has broken a connection."""
        return dict(Counter(self._told(r"Failpoint (\S+) fails")))

    def _told(self, pattern: str) -> list[str]:
        texts = (path.read_text("utf-8", "replace") for path in self.house.home.glob("*.log"))
        return [found for text in texts for found in re.findall(pattern, text)]


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _gave_up(log: str) -> bool:
    """Say whether a process that could not begin has said why, for its supervisor to start it again."""
    last = "\n".join(log.rstrip().splitlines()[-9:])
    reasons = r"(celeriac:|CRITICAL) The ledger |Could not start worker processes$|Application startup failed"
    return bool(re.search(reasons, last, re.MULTILINE))


def _signal_all(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # its children are of its group, and may have outlived it
        os.killpg(pid, number)
