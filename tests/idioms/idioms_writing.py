"""Writing tasks: base classes, retries, limits, what they may raise and return.

Each idiom as somebody would write it, with what must come of it in any configuration. See idioms.py.
"""

import pytest
from idiom_app import shared
from idioms import SECONDS, idiom, instead, succeeds
from instance import until

from celeriac.jobs import new_id
from celeriac.states import State


@idiom("`@shared_task`")
def _(here):
    succeeds(here, shared.delay(5), 5)


@idiom("custom base classes")
def _(here):
    result = here.based.delay()
    succeeds(here, result, "hello")
    for line in (f"before_start:{result.id}", f"on_success:{result.id}", f"after_return:{result.id}:SUCCESS"):
        here.comes(line)
    failed = here.based.delay(fails=True)
    here.ended(failed.id, State.FAILED)
    here.comes(f"on_failure:{failed.id}")
    here.comes(f"after_return:{failed.id}:FAILURE")


@idiom("`bind=True`, `self.request`")
def _(here):
    result = here.bound.apply_async(headers={"tenant": "seven"})
    assert result.get(timeout=SECONDS) == {
        "id": result.id, "task": "bound", "retries": 0, "tenant": "seven", "queue": "celery",
    }  # fmt: skip


@idiom("`self.retry()`")
def _(here):
    result = here.flaky.delay(2)
    succeeds(here, result, 2)
    assert here.job(result.id).attempt == 3
    assert here.kinds(result.id).count("retrying") == 2


@idiom("`autoretry_for`, `retry_backoff`, `max_retries`")
def _(here):
    result = here.hopeless.delay()
    with pytest.raises(ValueError, match="again"):
        result.get(timeout=SECONDS)
    assert here.ended(result.id, State.FAILED).failure.type == "ValueError"
    assert here.kinds(result.id).count("retrying") == 1


@idiom("an exception")
def _(here):
    result = here.fail.delay("on purpose")
    with pytest.raises(ValueError, match="on purpose"):
        result.get(timeout=SECONDS)
    failure = here.ended(result.id, State.FAILED).failure
    assert (failure.code, failure.type, failure.message) == ("raised", "ValueError", "on purpose")
    assert "idiom_app.py" in failure.traceback


@idiom("`raise Ignore`")
def _(here):
    assert here.ended(here.ignored.delay().id, State.SUCCEEDED).result in (None, "null")


@idiom("`raise Reject`")
def _(here):
    assert here.ended(here.rejected.delay(False).id, State.FAILED).failure.type == "Reject"
    again = here.rejected.delay(True)
    succeeds(here, again, "at the second time")
    assert "given-back" in here.kinds(again.id)


@idiom("`self.replace(task)`")
def _(here):
    result = here.replaced.delay("task")
    succeeds(here, result, 42)
    assert here.job(result.id).task == "add"


@idiom("`self.replace(chain, group or chord)`")
def _(here):
    for by, value in (("chain", 42), ("group", [2, 4]), ("chord", 6)):
        succeeds(here, here.replaced.delay(by), value)


@idiom("`self.update_state(state, meta)`")
def _(here):
    go = here.home / new_id()
    result = here.stated.delay(str(go))
    until(lambda: result.state == "MEASURING", f"the state\n{here.log()}", SECONDS)
    assert result.info == {"rod": 7}
    go.touch()
    succeeds(here, result, None)


@idiom("`rate_limit`, `control.rate_limit()`")
def _(here):
    times = sorted(result.get(timeout=SECONDS) for result in [here.limited.delay() for _ in range(3)])
    assert times[2] - times[0] >= 0.3
    [answer] = here.app.control.rate_limit("limited", "100/s", reply=True, limit=1, timeout=5)
    assert "ok" in answer["worker@here"]


@idiom("`soft_time_limit`")
def _(here):
    assert here.ended(here.soft.delay().id, State.FAILED).failure.code == "timeout"
    succeeds(here, here.patient.delay(), 1)  # caught, once


@idiom("`time_limit`")
def _(here):
    result = here.hard.delay()
    assert here.ended(result.id, State.FAILED).failure.code == "timeout"
    assert here.kinds(result.id).count("failed") == 1


@instead("`soft_time_limit`", ("observe",), ("threads", "solo"))
def _(here):
    succeeds(here, here.soft.delay(steps=10), "no limit")


@instead("`time_limit`", ("observe",), ("threads", "solo"))
def _(here):
    succeeds(here, here.hard.delay(steps=14), "no limit")


@idiom("`ignore_result`")
def _(here):
    result = here.forgotten.delay()
    assert here.ended(result.id, State.SUCCEEDED).result in (None, "null")
    assert here.app.AsyncResult(result.id).result is None


@idiom("`pydantic=True`")
def _(here):
    succeeds(here, here.modelled.delay({"x": 1, "y": 2}), {"x": 2, "y": 1})


@idiom("`async def` tasks")
def _(here):
    succeeds(here, here.awaited.delay(1), 2)


@instead("`async def` tasks", ("observe",))
def _(here):
    assert "coroutine" in here.ended(here.awaited.delay(1).id, State.FAILED).failure.message


@idiom("`celeriac.current`: progress, log, emit")
def _(here):
    result = here.talk.delay()
    succeeds(here, result, None)
    assert {"log", "message", "progress"} <= set(here.kinds(result.id))
    progress = here.job(result.id).progress
    assert (progress.value, progress.total, progress.note) == (1, 2, "half")
