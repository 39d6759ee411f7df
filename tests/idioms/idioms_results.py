"""Results: waiting, forgetting, revoking, telling what is there.

Each idiom as somebody would write it, with what must come of it in any configuration. See idioms.py.
"""

import pytest
from celery import group
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult
from idioms import SECONDS, idiom, instead, succeeds
from instance import until

from celeriac.states import State


@idiom("`result.get()`, `ready()`, `state`")
def _(here):
    result = here.wait.delay(0.3)
    assert not result.ready()
    assert result.get(timeout=SECONDS) == "waited"
    assert (result.ready(), result.successful(), result.state) == (True, True, "SUCCESS")


@idiom("`result.children`")
def _(here):
    result = here.add.apply_async((1, 1), link=here.add.s(40))
    result.get(timeout=SECONDS)
    [child] = here.app.AsyncResult(result.id).children
    assert child.get(timeout=SECONDS) == 42


@idiom("`GroupResult.save()`, `restore()`")
def _(here):
    results = group(here.add.s(n, n) for n in range(2)).delay()
    results.save()
    assert GroupResult.restore(results.id, app=here.app).get(timeout=SECONDS) == [0, 2]


@idiom("`result.forget()`")
def _(here):
    result = here.add.delay(1, 2)
    succeeds(here, result, 3)
    result.forget()
    until(lambda: here.app.AsyncResult(result.id).result is None, "the result to be gone")
    assert here.state(result.id) == "succeeded"


@idiom("`result.revoke()` of a job that waits")
def _(here):
    result = here.add.apply_async((1, 1), countdown=1)
    result.revoke()
    assert here.ended(result.id, State.CANCELLED).attempt == 0
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)


@idiom("`result.revoke()` while no worker listens")
def _(here):
    result = here.add.apply_async((1, 1), queue="idle")
    result.revoke()
    here.ended(result.id, State.CANCELLED)
    assert result.state == "REVOKED"


@instead("`result.revoke()` while no worker listens", ("observe",))
def _(here):
    result = here.add.apply_async((1, 1), queue="idle")
    result.revoke()
    until(lambda: here.state(result.id) == "queued", "it to be recorded")  # and so it stays: nobody has refused it


@idiom("`result.revoke(terminate=True)` of a job that runs")
def _(here):
    result = here.drifting.delay(30)
    here.comes(f"drifting:{result.id}")
    result.revoke(terminate=True)
    here.ended(result.id, State.CANCELLED)


@instead("`result.revoke(terminate=True)` of a job that runs", ("observe",), ("threads", "solo"))
def _(here):
    result = here.drifting.delay(0.5)
    here.comes(f"drifting:{result.id}")
    result.revoke(terminate=True)
    here.ended(result.id, State.SUCCEEDED)


@idiom("unknown and waiting are told apart")
def _(here):
    waiting = here.add.apply_async((1, 1), queue="idle")
    assert here.app.AsyncResult(waiting.id).name == "add"
    assert here.app.AsyncResult("never").name is None


@instead("unknown and waiting are told apart", ("observe",))
def _(here):
    waiting = here.add.apply_async((1, 1), queue="idle")
    assert here.app.AsyncResult(waiting.id).name is here.app.AsyncResult("never").name is None
    until(lambda: (here.state(waiting.id), here.state("never")) == ("queued", "unknown"), "the ledger to tell")


@idiom("an existing result backend")
def _(here):
    result = here.add.delay(1, 2)
    succeeds(here, result, 3)
    assert here.app.backend.as_uri().startswith("redis://")


@instead("an existing result backend", ("own",))
def _(here):
    assert here.app.backend.as_uri() == "celeriac://"
