"""Tasks that the flow and fault tests run in real workers. Each execution leaves a line in the file RAN."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import time
from typing import Any

from celery import chain, chord, group
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from celeriac import Celeriac, current

app = Celeriac("jobs")


def ran(label: str) -> None:
    """Append a line, whole, whatever happens next."""
    with open(os.environ["RAN"], "ab", buffering=0) as file:
        file.write(f"{label}\n".encode())


@app.task(name="add")
def add(x: float, y: float) -> float:
    ran(f"add:{x}:{y}")
    return x + y


@app.task(name="total")
def total(numbers: list[float]) -> float:
    ran("total")
    return sum(numbers)


@app.task(name="echo")
def echo(value: Any) -> Any:
    return value


@app.task(name="wait", bind=True)
def wait(self, seconds: float) -> str:
    ran(f"wait:{self.request.id}")
    for _ in current.track(range(max(1, int(seconds * 20)))):
        time.sleep(0.05)
    return "waited"


@app.task(name="stubborn")
def stubborn(seconds: float) -> None:
    ran("stubborn")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)


@app.task(name="fail")
def fail(message: str) -> None:
    raise ValueError(message)


@app.task(name="hostile")
def hostile() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no str")

        __repr__ = __str__

    raise Hostile


@app.task(name="not_json")
def not_json() -> object:
    return {"it": object()}


@app.task(name="quit")
def quit_() -> None:
    raise SystemExit(3)


@app.task(name="strange_text")
def strange_text() -> str:
    return "a\0b\ud800c\U0001f600"


@app.task(name="die")
def die() -> None:
    ran("die")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="poison")
def poison(how: str) -> None:
    """Say something in three ways, and end the process."""
    get_task_logger("jobs").warning("by the task logger, token=hush-hush, on")
    logging.getLogger("plain").warning("by a logger")
    current.log("by current.log")
    ran("poison")
    {"segfault": lambda: ctypes.string_at(0), "exit": lambda: os._exit(7),
     "kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "wait": lambda: time.sleep(60)}[how]()  # fmt: skip


@app.task(name="die_once")
def die_once() -> str:
    ran("die_once")
    marker = os.environ["RAN"] + ".died"
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.task(name="fail_once")
def fail_once() -> int:
    marker = os.environ["RAN"] + ".failed"
    if not os.path.exists(marker):
        open(marker, "w").close()
        raise ValueError("once")
    return 10


@app.task(name="flaky", bind=True, max_retries=5)
def flaky(self, failures: int) -> int:
    ran("flaky")
    if self.request.retries < failures:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(name="at_once", bind=True, max_retries=3)
def at_once(self) -> int:
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(name="backoff", autoretry_for=(ValueError,), retry_backoff=1, retry_jitter=False, max_retries=2)
def backoff() -> None:
    ran("backoff")
    raise ValueError("again")


@app.task(name="soft", soft_time_limit=0.5)
def soft() -> None:
    time.sleep(10)


@app.task(name="hard", time_limit=1)
def hard() -> None:
    time.sleep(10)


@app.task(name="talk")
def talk() -> int:
    current.log("hello")
    current.emit({"x": 1})
    current.progress(1, 2, "half")
    return 1


@app.task(name="parent")
def parent() -> str:
    return add.delay(1, 2).id


@app.task(name="replaced", bind=True)
def replaced(self) -> None:
    raise self.replace(add.s(40, 2))


@app.task(name="replaced_by", bind=True)
def replaced_by(self, canvas: str) -> None:
    canvases = {
        "chain": lambda: chain(add.s(1, 1), add.s(10)),
        "group": lambda: group(add.s(1, 1), add.s(2, 2)),
        "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
        "failing chain": lambda: chain(fail.si("no"), add.s(10)),
        "failing chord": lambda: chord([add.s(1, 1), fail.si("no")], total.s()),
    }
    raise self.replace(canvases[canvas]())


@app.task(name="replaced_slowly", bind=True)
def replaced_slowly(self) -> None:
    raise self.replace(chain(sleep.si(1), add.si(1, 1)))


@app.task(name="says", bind=True)
def says(self, seconds: float = 0) -> str:
    self.update_state(state="LOADING", meta={"current": 3, "total": 4})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
    return "said"


@app.task(name="declares_failure", bind=True)
def declares_failure(self) -> None:
    self.update_state(state="FAILURE", meta={"exc_type": "Refused", "exc_message": "not today"})
    raise Ignore


@app.task(name="slow_async")
async def slow_async(seconds: float) -> str:
    ran("slow_async")
    try:
        await asyncio.sleep(seconds)
    finally:
        ran("slow_async_closed")
    return "awaited"


@app.task(name="polls")
def polls(seconds: float) -> str:
    """Watch for a cancel without ever raising by itself."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not current.cancelled():
        time.sleep(0.02)
    return "polled"


@app.task(name="soft_steps", soft_time_limit=0.2)
def soft_steps() -> str:
    try:
        for _ in current.track(range(1000)):
            time.sleep(0.02)
    except SoftTimeLimitExceeded:
        return "caught"
    return "never"


@app.task(name="sleep")
def sleep(seconds: float) -> str:
    ran("sleep")
    time.sleep(seconds)
    return "slept"


@app.task(name="burn")
def burn(seconds: float) -> None:
    """Use up a processor, by its own clock."""
    ran("burn")
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@app.task(name="limited", rate_limit="2/s")
def limited() -> float:
    return time.time()


@app.task(name="big")
def big(megabytes: int) -> str:
    return "x" * (megabytes * 1_000_000)


@app.task(name="old_errback")
def old_errback(id: str) -> None:
    ran(f"old:{id}")


@app.task(name="new_errback")
def new_errback(request, error, traceback) -> None:
    ran(f"new:{request.id}:{type(error).__name__}")


def a_chain():
    return chain(add.s(1, 1), add.s(1), add.s(1))


def a_chord():
    return chord([add.s(n, n) for n in range(4)], total.s() | add.s(100))


def a_chain_into_a_chord():
    return chain(add.s(1, 1), group(add.s(n) for n in range(3)), total.s(), add.s(1000))
