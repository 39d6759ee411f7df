"""One app with a task for each idiom, as somebody has it who never heard of Celeriac; then it is attached.

The worker processes import it (`app`, made as the environment says), the tests make their own.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

import celery
from celery import Task, chain, chord, group, shared_task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from kombu import Queue
from kombu.common import Broadcast
from pydantic import BaseModel

import celeriac
from celeriac import current


def ran(label: str) -> None:
    """Append a line, whole, for the tests to find."""
    with open(os.environ["RAN"], "ab", buffering=0) as file:
        file.write(f"{label}\n".encode())


class Point(BaseModel):
    x: int
    y: int


class Base(Task):
    """A base class of the author's own, with every hook."""

    abstract = True
    greeting = "hello"

    def before_start(self, task_id, args, kwargs):
        ran(f"before_start:{task_id}")

    def on_success(self, retval, task_id, args, kwargs):
        ran(f"on_success:{task_id}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        ran(f"on_failure:{task_id}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        ran(f"after_return:{task_id}:{status}")


@shared_task(name="shared")
def shared(x):
    return x


def make(mode: str, broker: str, backend: str, **more) -> celery.Celery:
    """Make the app and attach it."""
    app = celery.Celery("idioms", broker=broker, backend=backend)
    app.conf.update(
        task_queues=[*map(Queue, ("celery", "other", "idle")), Broadcast("all", routing_key="all")],
        task_default_queue="celery",
        task_routes={
            "routed": {"queue": "other"},
            "shouted": {"queue": "all", "exchange": "all", "routing_key": "all"},
        },
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        result_extended=True,
        task_send_sent_event=True,
        **more,
    )
    celeriac.attach(app, mode=mode)
    define(lambda name, **options: app.task(name=name, shared=False, **options), app)
    return app


def define(task, app) -> None:
    @task("add")
    def add(x, y):
        return x + y

    @task("total")
    def total(numbers):
        return sum(numbers)

    @task("wait", bind=True)
    def wait(self, seconds):
        ran(f"wait:{self.request.id}")
        for _ in current.track(range(max(1, int(seconds * 20)))):
            time.sleep(0.05)
        return "waited"

    @task("fail")
    def fail(message="no"):
        raise ValueError(message)

    @task("based", base=Base)
    def based(fails=False):
        if fails:
            raise ValueError("no")
        return based.greeting

    @task("bound", bind=True)
    def bound(self):
        request = self.request
        return {
            "id": request.id, "task": self.name, "retries": request.retries, "tenant": request.get("tenant"),
            "queue": request.delivery_info["routing_key"],
        }  # fmt: skip

    @task("flaky", bind=True, max_retries=3)
    def flaky(self, failures):
        if self.request.retries < failures:
            raise self.retry(countdown=0.1, exc=ValueError("again"))
        return self.request.retries

    @task("hopeless", autoretry_for=(ValueError,), max_retries=1, retry_backoff=0.1, retry_jitter=False)
    def hopeless():
        raise ValueError("again")

    @task("ignored")
    def ignored():
        raise Ignore

    @task("rejected", bind=True, acks_late=True)
    def rejected(self, requeue):
        ran(f"rejected:{self.request.id}")
        if requeue and Path(os.environ["RAN"]).read_text().count(f"rejected:{self.request.id}") > 1:
            return "at the second time"
        raise Reject("no thanks", requeue=requeue)

    @task("replaced", bind=True)
    def replaced(self, by):
        raise self.replace(
            {
                "task": add.s(40, 2),
                "chain": chain(add.s(1, 1), add.s(40)),
                "group": group(add.s(1, 1), add.s(2, 2)),
                "chord": chord([add.s(1, 1), add.s(2, 2)], total.s()),
            }[by]
        )

    @task("followed")
    def followed(result, label):
        ran(f"followed:{label}:{result}")

    @task("wailed")
    def wailed(id):
        ran(f"wailed:{id}")

    @task("explained")
    def explained(request, error, traceback):
        ran(f"explained:{request.id}:{error}")

    @task("stated", bind=True)
    def stated(self, go):
        self.update_state(state="MEASURING", meta={"rod": 7})
        while not os.path.exists(go):
            time.sleep(0.02)

    @task("limited", rate_limit="5/s")
    def limited():
        return time.time()

    @task("drifting", bind=True, track_started=True)
    def drifting(self, seconds):
        ran(f"drifting:{self.request.id}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)
            current.progress(1)
        return "through"

    @task("modelled", pydantic=True)
    def modelled(point: Point) -> Point:
        return Point(x=point.y, y=point.x)

    @task("awaited")
    async def awaited(x):
        await asyncio.sleep(0)
        return x + 1

    @task("soft", soft_time_limit=0.3)
    def soft(steps=100):
        for _ in current.track(range(steps)):
            time.sleep(0.05)
        return "no limit"

    @task("patient", soft_time_limit=0.3)
    def patient(steps=20):
        caught = 0
        for _ in current.track(range(steps)):
            try:
                time.sleep(0.05)
                current.progress(1)
            except SoftTimeLimitExceeded:
                caught += 1
        return caught

    @task("hard", time_limit=0.6)
    def hard(steps=100):
        for _ in current.track(range(steps)):
            time.sleep(0.05)
        return "no limit"

    @task("forgotten", ignore_result=True)
    def forgotten():
        return 1

    @task("routed")
    def routed():
        return 1

    @task("shouted")
    def shouted(label):
        ran(f"shouted:{label}")

    @task("talk")
    def talk():
        current.log("hello")
        current.emit({"x": 1})
        current.progress(1, 2, "half")

    def die_once(id):
        ran(f"died:{id}")
        if Path(os.environ["RAN"]).read_text().count(f"died:{id}") == 1:
            time.sleep(0.2)  # what it has told so far is read before its end
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    @task("dies", bind=True)
    def dies(self):
        return die_once(self.request.id)

    @task("dies_late", bind=True, acks_late=True, reject_on_worker_lost=True)
    def dies_late(self):
        return die_once(self.request.id)

    @task("parent")
    def parent():
        return add.delay(1, 2).id

    if os.environ.get("NEW_TASKS"):

        @task("brand_new")
        def brand_new():
            return "new"


def hear(app) -> None:
    """Leave a line for each of Celery's signals about a task."""
    for name in ("prerun", "postrun", "success", "failure", "retry", "received"):
        signal = getattr(signals, f"task_{name}")

        def heard(name=name, sender=None, **told):
            request = told.get("request")
            id = told.get("task_id") or (request.id if request else sender.request.id)
            ran(f"signal:{name}:{id}")

        signal.connect(heard, weak=False)


if "IDIOMS_MODE" in os.environ:
    app = make(os.environ["IDIOMS_MODE"], os.environ["IDIOMS_BROKER"], os.environ["IDIOMS_BACKEND"])
    hear(app)
