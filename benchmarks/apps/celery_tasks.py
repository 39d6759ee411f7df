"""The baseline's tasks for plain Celery. Run as a program it submits so many echo jobs with `.delay()`."""

import os
import sys
from dataclasses import asdict
from typing import Any

from celery import Celery

app = Celery("baseline", broker=os.environ["BASELINE_BROKER"], backend=os.environ["BASELINE_RESULTS"])
app.conf.task_acks_late = os.environ["BASELINE_BROKER"].startswith("amqp")


@app.task(name="echo")
def echo(value: Any) -> Any:
    """Give back what it got, as the demo's `echo` does."""
    return value


@app.task(name="lcs")
def lcs(a: str, b: str) -> dict[str, object]:
    """Run the function behind the demo's `lcs`."""
    from celeriac.demo.lcs import longest_common_substring

    return asdict(longest_common_substring(a, b))


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        echo.delay(value=1)
