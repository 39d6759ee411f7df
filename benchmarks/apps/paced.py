"""A task that notes how long it took to begin, for Celeriac or (with `BASELINE_BROKER`) plain Celery.

Run as a program it submits so many of them, so many a second: `paced 500 50`.
"""

import os
import sys
import time
from typing import Any

from celery import Celery

from celeriac import Celeriac

baseline = os.environ.get("BASELINE_BROKER")
app: Any = Celery("paced", broker=baseline, backend=os.environ["BASELINE_RESULTS"]) if baseline else Celeriac("paced")
app.conf.task_acks_late = True
app.conf.task_default_queue = "small"


@app.task(name="begin")
def begin(sent: float) -> None:
    """Append the seconds since `.delay()` was called to the file LATENCIES."""
    with open(os.environ["LATENCIES"], "ab", buffering=0) as file:
        file.write(b"%.6f\n" % (time.time() - sent))


if __name__ == "__main__":
    count, rate = int(sys.argv[1]), float(sys.argv[2])
    began = time.time()
    for number in range(count):
        time.sleep(max(began + number / rate - time.time(), 0))
        begin.delay(time.time())
