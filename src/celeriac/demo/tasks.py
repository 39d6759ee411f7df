"""The demo's tasks, written as a user would write them. `celeriac demo` runs this app.

Each one shows something: `lcs` picks its queue by the size of its input, `sleep` and `crunch` report progress and obey
a cancel, `divide` fails as Python fails, `echo` gives back what it got. Whoever calls a task is shown its docstring.
"""

import hashlib
import time
from dataclasses import asdict
from typing import Any

from celeriac import Celeriac, current
from celeriac.demo.lcs import longest_common_substring

app = Celeriac("demo")
app.conf.task_default_queue = "small"  # where tasks go that do not choose by cost


@app.task(name="lcs", cost=lambda a, b: max(len(a), len(b)), queues={1_000: "small", None: "large"})
def lcs(a: str, b: str) -> dict[str, object]:
    """Find the longest text that is in both `a` and `b`.

    Gives the common `text`, its `length`, and where it starts in each: `a_at`, `b_at`. All of them count characters
    from 0. Of several equally long ones it is the first in `a`, at its first place in `b`. Two texts of a million
    characters take about a second. Texts of more than 1,000 characters go to the queue `large`.
    """
    current.log(f"Comparing {len(a):,} characters with {len(b):,}.")
    return asdict(longest_common_substring(a, b))


@app.task(name="sleep", cost=lambda seconds: seconds, queues={5: "small", None: "large"})
def sleep(seconds: float) -> float:
    """Wait for `seconds`, with progress ten times a second, and give the number back.

    Uses no CPU: good for filling a queue or trying a cancel. More than 5 seconds go to the queue `large`.
    """
    steps = max(1, round(seconds * 10))
    for _ in current.track(range(steps), note="sleeping"):
        time.sleep(seconds / steps)
    return seconds


@app.task(name="divide")
def divide(x: float, y: float) -> float:
    """Divide `x` by `y`.

    With `y` = 0 the job fails with Python's own ZeroDivisionError, to show what a failure looks like.
    """
    return x / y


@app.task(name="crunch", cost=lambda seconds: seconds, queues={5: "small", None: "large"})
def crunch(seconds: float) -> dict[str, object]:
    """Keep one CPU core busy for `seconds`, with progress ten times a second, and say how many hashes it made.

    Good for watching workers scale. More than 5 seconds go to the queue `large`.
    """
    steps = max(1, round(seconds * 10))
    block, hashes, started = bytes(64), 0, time.monotonic()
    for step in current.track(range(1, steps + 1), note="hashing"):
        while time.monotonic() - started < seconds * step / steps:
            block = hashlib.sha512(block).digest()
            hashes += 1
    return {"hashes": hashes, "last": block.hex()}


@app.task(name="echo")
def echo(value: Any) -> Any:
    """Give back `value`, whatever JSON it is: the shortest way through the whole server."""
    return value
