"""Canvases that change or fail on their way: replaced tasks, error callbacks of chords, large and nested ones."""

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from instance import until

from celeriac.access import SYSTEM
from celeriac.ledger import Asked, cancel
from celeriac.states import State


@pytest.mark.parametrize(("canvas", "result"), [("chain", 12), ("group", [2, 4]), ("chord", 6)])
def test_a_task_replaced_by_a_canvas_ends_with_its_result_under_its_own_id(client, house, canvas, result):
    replaced = client.replaced_by.delay(canvas)

    assert replaced.get(timeout=20) == result
    kinds = house.kinds(replaced.id)
    assert kinds[:4] == ["submitted", "claimed", "started", "retrying"]
    assert kinds[-1] == "succeeded"
    assert house.job(replaced.id).attempt == 2


def test_a_link_replaced_by_a_canvas_hands_its_result_to_the_next_link(client):
    assert chain(client.replaced_by.si("chain"), client.add.s(100)).delay().get(timeout=20) == 112


def test_a_member_replaced_by_a_canvas_gives_its_part_to_the_chord(client):
    members = [client.replaced_by.si("chord"), client.add.s(1, 1)]

    assert chord(members, client.total.s()).delay().get(timeout=20) == 8


@pytest.mark.parametrize("canvas", ["failing chain", "failing chord"])
def test_a_job_fails_with_the_canvas_that_replaced_it(client, house, canvas):
    [job] = house.ended([client.replaced_by.delay(canvas).id])

    assert (job.state, job.failure.code) == (State.FAILED, "upstream-failed")
    assert "no" in job.failure.message


def test_a_failed_replacement_fails_the_chord_its_job_is_a_member_of(client, house):
    result = chord([client.replaced_by.si("failing chain"), client.add.s(1, 1)], client.total.s()).delay()

    with pytest.raises((ChordError, ValueError), match="no"):
        result.get(timeout=20)


def test_a_replaced_job_may_be_cancelled_while_its_canvas_runs(client, house):
    result = client.replaced_slowly.delay()
    until(lambda: house.state(result.id) == "retrying", "it to be replaced")
    house.ledger.do(cancel, Asked(SYSTEM, result.id))
    house.all_ended()

    assert house.job(result.id).state is State.CANCELLED
    assert house.kinds(result.id)[-1] == "cancelled"


@pytest.mark.parametrize("style", ["old", "new"])
def test_the_error_callback_of_a_chord_is_called_once_when_members_fail(client, house, style):
    body = client.total.s().on_error(getattr(client, f"{style}_errback").s())
    result = chord([client.fail.si("a"), client.fail.si("b"), client.add.s(1, 1)], body).delay()
    until(lambda: house.runs(f"{style}:{result.id}"), "the error callback")
    house.all_ended()

    told = {"old": f"old:{result.id}", "new": f"new:{result.id}:ChordError"}
    assert house.runs(f"{style}:{result.id}") == [told[style]]


@pytest.mark.parametrize("style", ["old", "new"])
def test_an_error_callback_runs_after_a_failure(client, house, style):
    result = client.fail.apply_async(("no",), link_error=getattr(client, f"{style}_errback").s())

    until(lambda: house.runs(f"{style}:{result.id}"), "the error callback")


def test_the_error_callback_of_a_job_that_kills_its_workers_is_called(client, house):
    result = client.die.apply_async(link_error=client.old_errback.s())
    [job] = house.ended([result.id])

    assert job.failure.code == "quarantined"
    until(lambda: house.runs(f"old:{result.id}"), "the error callback")


@pytest.mark.parametrize("style", ["old", "new"])
def test_the_error_callback_of_a_job_past_its_hard_limit_runs(client, house, style):
    result = client.hard.apply_async(link_error=getattr(client, f"{style}_errback").s())
    until(lambda: house.runs(f"{style}:{result.id}"), "the error callback")
    house.all_ended()

    told = {"old": f"old:{result.id}", "new": f"new:{result.id}:TimeLimitExceeded"}
    assert house.runs(f"{style}:{result.id}") == [told[style]]


def test_a_chord_of_a_thousand_members_completes(client):
    result = chord([client.echo.s(1) for _ in range(1000)], client.total.s()).delay()

    assert result.get(timeout=60) == 1000


def test_canvases_nest(client):
    inner = chord([client.add.s(1, 1), chain(client.add.s(2, 2), client.add.s(1))], client.total.s())
    nested = chain(group(inner, client.add.s(3, 3)), client.total.s(), group(client.add.s(1), client.add.s(2)))

    assert nested.delay().get(timeout=30) == [14, 15]
