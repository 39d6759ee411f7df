"""The load generator: so many clients on this machine, each sending its next request after its answer.

One process with one epoll loop, started by `drive`, so that its CPU is its own and is told.
It takes a plan as JSON on stdin and prints what happened as JSON on stdout.
"""

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from benchmarks.processes import PYTHON, ROOT, clean
from benchmarks.wire import connect, parse

LONGEST_SECONDS = 600


@dataclass
class Load:
    """What a run of the generator saw; latencies in milliseconds, `cpu` its own CPU seconds."""

    answers: int = 0
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    cpu: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    locked: int = 0  # answers that say something is locked
    broken: int = 0  # connections that ended before their answer

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds

    def expect(self, status: int) -> "Load":
        """Fail unless every answer had this status."""
        if set(self.statuses) != {str(status)} or self.broken:
            raise RuntimeError(f"Expected only {status}: {self.statuses}, {self.broken} broken connections.")
        return self


class Running:
    """A generator under way in a process of its own; without seconds and most it goes on until `end`."""

    def __init__(self, port: int, requests: list[bytes], clients: int, seconds: float = 0, most: int = 0) -> None:
        plan = {"port": port, "requests": [one.decode() for one in requests], "clients": clients,
                "seconds": seconds, "most": most}  # fmt: skip
        self._process = subprocess.Popen(
            [PYTHON, "-m", "benchmarks.load"], cwd=ROOT, env=clean({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()

    def end(self) -> Load:
        """Wait for its end and return what it saw; closing stdin tells an endless one to stop."""
        out, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("The load generator failed.")
        return Load(**json.loads(out))


def drive(port: int, requests: list[bytes], clients: int, seconds: float = 0, most: int = 0) -> Load:
    """Run the generator for so many seconds, or until it has so many answers; return what it saw."""
    return Running(port, requests, clients, seconds, most).end()


class Generator:
    """The clients; lives in the generator's process."""

    def __init__(self, port: int, requests: list[bytes], clients: int, most: int) -> None:
        self._port = port
        self._requests = requests
        self._left = most or sys.maxsize
        self._sent = 0
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sent_at: dict[int, float] = {}
        self._buffers: dict[int, bytes] = {}
        self._took: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._load = Load()
        for _ in range(clients):
            self._open()

    def run(self, seconds: float, endless: bool) -> Load:
        """Send until the time is over, or all is answered, or an endless one's stdin is closed."""
        began, used = time.perf_counter(), time.process_time()
        for number in list(self._sockets):
            self._send(number)
        if endless:
            self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while self._buffers and (left := began + seconds - time.perf_counter()) > 0:
            for number, _ in self._epoll.poll(min(left, 1)):
                if number == sys.stdin.fileno():
                    return self._done(began, used)
                self._read(number)
        return self._done(began, used)

    def _done(self, began: float, used: float) -> Load:
        load, took = self._load, sorted(self._took)
        load.seconds, load.cpu = time.perf_counter() - began, time.process_time() - used
        load.answers, load.statuses = len(took), {str(status): count for status, count in self._statuses.items()}
        load.p50, load.p99 = ((1000 * took[int(len(took) * part)]) if took else 0.0 for part in (0.5, 0.99))
        return load

    def _open(self) -> int:
        made = connect(self._port)
        made.setblocking(False)
        self._sockets[made.fileno()] = made
        self._epoll.register(made.fileno(), select.EPOLLIN)
        return made.fileno()

    def _again(self, number: int) -> int:
        self._epoll.unregister(number)
        self._sockets.pop(number).close()
        return self._open()

    def _send(self, number: int) -> None:
        if not self._left:
            return
        self._left -= 1
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        self._buffers[number] = b""
        self._sent_at[number] = time.perf_counter()
        if self._sockets[number].send(request) != len(request):
            raise ValueError("The request is too long for this generator.")

    def _read(self, number: int) -> None:
        part = b""
        with contextlib.suppress(ConnectionError):
            part = self._sockets[number].recv(262144)
        waiting = self._buffers.get(number)
        if not part:
            if waiting is not None:
                self._load.broken += 1
                del self._buffers[number]
            self._send(self._again(number))
            return
        buffer = (waiting or b"") + part
        answer = parse(buffer)
        if answer is None:
            self._buffers[number] = buffer
            return
        del self._buffers[number]
        self._took.append(time.perf_counter() - self._sent_at[number])
        self._statuses[answer.status] += 1
        self._load.locked += b"locked" in answer.body
        self._send(self._again(number) if answer.last else number)


if __name__ == "__main__":
    plan = json.loads(sys.stdin.readline())
    generator = Generator(plan["port"], [one.encode() for one in plan["requests"]], plan["clients"], plan["most"])
    endless = not plan["seconds"] and not plan["most"]
    print(json.dumps(asdict(generator.run(plan["seconds"] or LONGEST_SECONDS, endless))))
