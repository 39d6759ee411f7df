"""Operating: purge, inspect, control, signals, events, deploys.

Each idiom as somebody would write it, with what must come of it in any configuration. See idioms.py.
"""

import time

from celery import signals
from idioms import SECONDS, idiom, instead, succeeds
from instance import until
from world import end

from celeriac.states import State


@idiom("`celery purge`")
def _(here):
    result = here.add.apply_async((1, 1), queue="idle")
    assert purge(here) >= 1
    here.ended(result.id, State.CANCELLED)


@instead("`celery purge`", ("observe",))
def _(here):
    result = here.add.apply_async((1, 1), queue="idle")
    assert purge(here) >= 1
    until(lambda: here.state(result.id) == "queued", "the ledger to be none the wiser")


def purge(here) -> int:
    with here.app.connection_for_write() as connection:
        consumer = here.app.amqp.TaskConsumer(connection.default_channel, queues=[here.app.amqp.queues["idle"]])
        return consumer.purge()


@idiom("`celery inspect`")
def _(here):
    inspect = here.app.control.inspect(["worker@here"], timeout=5, limit=1)
    assert inspect.ping() == {"worker@here": {"ok": "pong"}}
    assert "add" in inspect.registered()["worker@here"]
    assert {"celery", "other"} <= {queue["name"] for queue in inspect.active_queues()["worker@here"]}
    assert inspect.stats()["worker@here"]["pool"]
    assert isinstance(inspect.reserved()["worker@here"], list)
    assert isinstance(inspect.scheduled()["worker@here"], list)
    assert inspect.conf()["worker@here"]["task_default_queue"] == "celery"
    if here.pool != "solo":  # which does not listen while it runs a task
        result = here.drifting.delay(1)
        here.comes(f"drifting:{result.id}")
        assert result.id in [task["id"] for task in inspect.active()["worker@here"]]
        assert result.id in inspect.query_task(result.id)["worker@here"]


@idiom("`control.add_consumer()`, `cancel_consumer()`")
def _(here):
    result = here.add.apply_async((1, 1), queue="idle")
    options = {"reply": True, "limit": 1, "timeout": 5, "destination": ["worker@here"]}
    here.app.control.add_consumer("idle", **options)
    succeeds(here, result, 2)
    here.app.control.cancel_consumer("idle", **options)
    waiting = here.add.apply_async((1, 1), queue="idle")
    succeeds(here, here.add.delay(1, 1), 2)
    assert here.state(waiting.id) == "queued"


@idiom("signals of tasks")
def _(here):
    result = here.flaky.delay(1)
    succeeds(here, result, 1)
    for name, times in (("received", 2), ("prerun", 2), ("retry", 1), ("postrun", 2), ("success", 1)):
        here.comes(f"signal:{name}:{result.id}", times)
    here.comes(f"signal:failure:{failed_id(here)}")


def failed_id(here) -> str:
    return here.ended(here.fail.delay().id, State.FAILED).id


@idiom("signals of publishing, and their headers")
def _(here):
    seen = []

    def before(headers=None, **_):
        headers["tenant"] = "seven"

    def after(headers=None, **_):
        seen.append(headers["id"])

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        result = here.bound.delay()
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert result.get(timeout=SECONDS)["tenant"] == "seven"
    assert seen == [result.id]


@idiom("events of tasks (Flower)")
def _(here):
    seen: list[tuple[str, str]] = []
    here.app.control.enable_events(reply=True, limit=1, timeout=5)
    with here.app.connection_for_read() as connection:
        receiver = here.app.events.Receiver(
            connection, handlers={"*": lambda event: seen.append((event["type"], event.get("uuid")))}
        )
        listening = receiver.itercapture(timeout=SECONDS, wakeup=False)
        next(listening)
        result = here.add.delay(5, 5)
        wanted = {(f"task-{word}", result.id) for word in ("received", "started", "succeeded")}
        end = time.monotonic() + SECONDS
        while not wanted <= set(seen) and time.monotonic() < end:
            next(listening, None)
        listening.close()  # or it would leave its mailbox whenever it is collected
    here.app.control.disable_events(reply=True, limit=1, timeout=5)
    assert wanted <= set(seen)


@idiom("a rolling deploy: an old worker does not know a new task")
def _(here):
    result = here.app.send_task("brand_new", queue="other")
    succeeds(here, here.add.apply_async((1, 1), queue="other"), 2)  # the old worker has seen the queue
    assert here.state(result.id) == "queued"
    newer = here.worker("newer", "other", NEW_TASKS="1")
    succeeds(here, result, "new")
    end([newer])


@instead("a rolling deploy: an old worker does not know a new task", ("observe",))
def _(here):
    result = here.app.send_task("brand_new", queue="other")
    assert here.ended(result.id, State.FAILED).failure.type == "NotRegistered"
