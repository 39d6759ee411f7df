"""The mixed load of a run: a program that submits jobs of every kind and notes what was acknowledged, as it is.

Started by cast.py as processes of their own, which are killed like all others. Each line of ACKNOWLEDGED is one
acknowledgement: the ids, and what must have become of them in the end. What was answered by an error, or not at all,
is not in there: whether it exists is nobody's promise.
"""

import contextlib
import itertools
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
from celery import chain, chord, group
from kombu.exceptions import OperationalError

from celeriac.errors import LedgerFull, LedgerUnavailable

AGAIN_SECONDS = 20  # how long a client asks again before it gives up
TRY_AGAIN = (429, 503, 507)


class Refused(Exception):
    """An answer that the load should never get."""


class Client:
    """Asks any of the web processes, and the next one when there is no answer: the same request, the same key."""

    def __init__(self, ports: list[int], token: str, dice: random.Random) -> None:
        self._bases = itertools.cycle([f"http://127.0.0.1:{port}/api/v1" for port in ports])
        self._http = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=8)
        self._dice = dice

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return the answer, or None when there was none in time. Raises for one that nobody may get."""
        headers = {"Idempotency-Key": uuid4().hex} if method == "POST" else {}
        deadline = time.monotonic() + AGAIN_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self._http.request(method, next(self._bases) + path, json=body, headers=headers)
            except httpx.HTTPError:
                time.sleep(0.1)
                continue
            if answer.status_code in TRY_AGAIN:
                assert "retry-after" in answer.headers or answer.status_code == 507, answer.text
                time.sleep(0.2)
                continue
            if answer.status_code == 409:  # too late for what was asked
                return None
            if not answer.is_success:
                raise Refused(f"{method} {path}: {answer.status_code} {answer.text}")
            return answer.json()
        return None


class Load:
    """One thread that goes on submitting."""

    def __init__(self, number: int) -> None:
        self.dice = random.Random(f"{os.environ['SEED']}:{os.getpid()}:{number}")
        self.client = Client(json.loads(os.environ["PORTS"]), os.environ["ADMIN"], self.dice)
        self._kinds: list[Callable[[], None]] = [
            self.plain, self.plain, self.waits, self.waits, self.fails, self.retries, self.delayed, self.expires,
            self.cancelled_waiting, self.cancelled_running, self.unique, self.batch, self.chain, self.group, self.chord,
        ]  # fmt: skip

    def run(self) -> None:
        """Submit one thing after another; what goes wrong in another way than it may is noted, too."""
        pace = float(os.environ["PACE"])
        while True:
            kind = self.dice.choice(self._kinds)
            try:
                kind()
            except (LedgerUnavailable, LedgerFull, OperationalError):  # Celery makes the last of the others
                pass
            except Exception as error:
                note(kind=kind.__name__, wrong=f"{type(error).__name__}: {error}"[:1500])
                traceback.print_exc()
            time.sleep(self.dice.uniform(0, 2 * pace))

    def submit(self, task: str, arguments: dict[str, Any], **more: Any) -> str | None:
        tags = [*more.pop("tags", ()), once()]
        answer = self.client.ask("POST", "/jobs", {"task": task, "args": arguments, "tags": tags, **more})
        return answer["id"] if answer else None

    # Each kind submits, and says what must come of it

    def plain(self) -> None:
        x, y = self.dice.randrange(1000), self.dice.randrange(1000)
        id = self.submit("add", {"x": x, "y": y}, priority=self.dice.randrange(10))
        acknowledged("plain", {id: ["succeeded", x + y]})

    def waits(self) -> None:
        id = self.submit("wait", {"seconds": round(self.dice.uniform(0.02, 0.4), 2)})
        acknowledged("waits", {id: ["succeeded", "waited"]})

    def fails(self) -> None:
        acknowledged("fails", {self.submit("fail", {"message": "no"}): ["failed"]})

    def retries(self) -> None:
        failures = self.dice.randrange(1, 3)
        acknowledged("retries", {self.submit("flaky", {"failures": failures}): ["succeeded", failures]})

    def delayed(self) -> None:
        id = self.submit("add", {"x": 1, "y": 1}, delay=round(self.dice.uniform(0.2, 2), 2))
        acknowledged("delayed", {id: ["succeeded", 2]})

    def expires(self) -> None:
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
        with contextlib.suppress(Refused):  # asked for again when it had expired
            acknowledged("expires", {self.submit("add", {"x": 1, "y": 2}, expires_at=soon): ["succeeded|cancelled"]})

    def cancelled_waiting(self) -> None:
        id = self.submit("add", {"x": 5, "y": 5}, delay=3)
        if id is None:
            return
        acknowledged("cancelled waiting", {id: ["succeeded|cancelled"]})
        answer = self.client.ask("PUT", f"/jobs/{id}/cancellation")
        if answer and answer["state"] == "cancelled":
            acknowledged("cancelled waiting", {id: ["cancelled"]}, never_runs=True)

    def cancelled_running(self) -> None:
        id = self.submit("long", {"seconds": 2})
        if id is None:
            return
        acknowledged("cancelled running", {id: ["succeeded|cancelled"]})
        time.sleep(self.dice.uniform(0, 0.6))
        self.client.ask("PUT", f"/jobs/{id}/cancellation")

    def unique(self) -> None:
        key = f"k{self.dice.randrange(4)}"
        id = self.submit("unique", {"key": key}, unique={"key": key}, tags=[f"unique-{key}"])
        acknowledged("unique", {id: ["succeeded", key]})

    def batch(self) -> None:
        many = self.dice.randrange(2, 12)
        jobs = [{"task": "add", "args": {"x": n, "y": 1}, "tags": [once()]} for n in range(many)]
        answer = self.client.ask("POST", "/jobs/batch", {"jobs": jobs})
        if answer:
            acknowledged("batch", {job["id"]: ["succeeded", n + 1] for n, job in enumerate(answer["jobs"])})

    def chain(self) -> None:
        add = tasks()["add"]
        result = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
        acknowledged("chain", {result.id: ["succeeded", 7], result.parent.parent.id: ["succeeded", 2]})

    def group(self) -> None:
        add = tasks()["add"]
        result = group(add.s(n, 1) for n in range(4)).apply_async()
        acknowledged("group", {member.id: ["succeeded", n + 1] for n, member in enumerate(result.results)})

    def chord(self) -> None:
        add, total = tasks()["add"], tasks()["total"]
        if self.dice.random() < 0.3:
            canvas = chord([add.s(1, 1), tasks()["fail"].si("no")], total.s())
            acknowledged("failing chord", {canvas.apply_async().id: ["failed"]})
        else:
            result = chord([add.s(n, n) for n in range(3)], total.s() | add.s(100)).apply_async()
            acknowledged("chord", {result.id: ["succeeded", 106]})


def once() -> str:
    """Return a tag that one job may have, however often its submit is repeated."""
    return f"once-{uuid4().hex}"


def tasks() -> Any:
    from jobs_for_faults import app

    return app.tasks


_file = threading.Lock()


def acknowledged(kind: str, ends: dict[str | None, list[Any]], never_runs: bool = False) -> None:
    """Note an acknowledgement: by id the state that it must end in, and the result."""
    known = {id: end for id, end in ends.items() if id is not None}
    if known:
        note(kind=kind, at=time.time(), ends=known, never_runs=never_runs)


def note(**line: Any) -> None:
    with _file, open(os.environ["ACKNOWLEDGED"], "ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


def main() -> None:
    """Submit from some threads until killed."""
    tasks()
    threads = [threading.Thread(target=Load(number).run, daemon=True) for number in range(int(sys.argv[1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
