"""Calling tasks: options, queues, from inside another.

Each idiom as somebody would write it, with what must come of it in any configuration. See idioms.py.
"""

from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import TaskRevokedError
from idioms import SECONDS, idiom, instead, succeeds
from instance import until

from celeriac.jobs import new_id
from celeriac.states import State


@idiom("`task.delay()`")
def _(here):
    succeeds(here, here.add.delay(1, 2), 3)


@idiom("`apply_async(countdown=…)`")
def _(here):
    result = here.add.apply_async((1, 1), countdown=1)
    until(lambda: here.state(result.id) == "scheduled", "it to wait for its time")
    succeeds(here, result, 2)


@idiom("`apply_async(eta=…)`")
def _(here):
    due = datetime.now(UTC) + timedelta(seconds=0.5)
    result = here.add.apply_async((1, 1), eta=due)
    succeeds(here, result, 2)
    assert here.job(result.id).started_at >= due.timestamp() * 1e6


@idiom("`apply_async(expires=…)`")
def _(here):
    result = here.add.apply_async((1, 1), countdown=0.8, expires=0.2)
    assert here.ended(result.id, State.CANCELLED).failure.code == "expired"
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)


@idiom("`apply_async(priority=…)`")
def _(here):
    result = here.add.apply_async((1, 1), priority=7)
    succeeds(here, result, 2)
    assert here.job(result.id).priority == 7


@idiom("`apply_async(queue=…)`")
def _(here):
    result = here.bound.apply_async(queue="other")
    assert result.get(timeout=SECONDS)["queue"] == "other"
    assert here.ended(result.id, State.SUCCEEDED).queue == "other"


@idiom("`apply_async(task_id=…)`")
def _(here):
    id = f"mine-{new_id()}"
    succeeds(here, here.add.apply_async((1, 1), task_id=id), 2)
    assert here.job(id).task == "add"


@idiom("`apply_async(time_limit=…, soft_time_limit=…)`")
def _(here):
    for limit in ({"soft_time_limit": 0.3}, {"time_limit": 0.6}):
        result = here.drifting.apply_async((10,), **limit)
        assert here.ended(result.id, State.FAILED).failure.code == "timeout"


@instead("`apply_async(time_limit=…, soft_time_limit=…)`", ("observe",), ("threads", "solo"))
def _(here):
    succeeds(here, here.drifting.apply_async((0.4,), time_limit=0.1), "through")


@idiom("`app.send_task()`")
def _(here):
    succeeds(here, here.app.send_task("add", (1, 2)), 3)


@idiom("`task.apply()`")
def _(here):
    result = here.add.apply((1, 2))
    assert result.get() == 3
    assert here.state(result.id) == "unknown"


@idiom("`task.delay()` inside a task")
def _(here):
    result = here.parent.delay()
    child = result.get(timeout=SECONDS)
    assert here.ended(child, State.SUCCEEDED).parent == result.id


@idiom("`task.chunks()`")
def _(here):
    assert here.add.chunks(zip(range(4), range(4), strict=True), 2)().get(timeout=SECONDS) == [[0, 2], [4, 6]]


@idiom("`task_routes`")
def _(here):
    result = here.routed.delay()
    succeeds(here, result, 1)
    assert here.job(result.id).queue == "other"


@idiom("Broadcast queues")
def _(here):
    label = new_id()
    succeeds(here, here.add.delay(1, 1), 2)  # the worker listens, then
    # Over Redis a producer must declare the exchange, or kombu does not know that it fans out.
    sent = here.shouted.apply_async((label,), declare=[here.app.amqp.queues["all"].exchange])
    here.comes(f"shouted:{label}")
    if here.mode == "own":
        assert here.state(sent.id) == "unknown"
