"""Whole lives of jobs, as Celery code sees them: `.delay()`, canvas, retries, results, remote control."""

import os

import pytest
from celery.exceptions import ChordError, TaskRevokedError
from instance import until
from oracle import violations

from celeriac.access import SYSTEM
from celeriac.ledger import Asked, cancel, reopen
from celeriac.states import State


def test_delay_gives_a_result(client):
    assert client.add.delay(1, 2).get(timeout=20) == 3


def test_each_link_of_a_chain_gets_the_result_before_it(client):
    assert client.a_chain().delay().get(timeout=20) == 4


def test_a_group_gives_all_results_in_order(client):
    from celery import group

    assert group(client.add.s(n, n) for n in range(8)).delay().get(timeout=20) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_the_body_of_a_chord_gets_the_results_of_its_members(client):
    assert client.a_chord().delay().get(timeout=20) == 112


def test_a_chain_goes_on_through_a_chord(client):
    assert client.a_chain_into_a_chord().delay().get(timeout=20) == 1009


def test_a_failing_member_fails_the_body_which_never_runs(client, house):
    from celery import chord

    result = chord([client.add.s(1, 1), client.fail.si("no")], client.total.s()).delay()

    with pytest.raises((ChordError, ValueError), match="no"):
        result.get(timeout=20)
    job = house.job(result.id)
    assert (job.state, job.failure.code, job.attempt) == (State.FAILED, "upstream-failed", 0)


def test_the_links_behind_a_failed_one_fail_without_running(client, house):
    from celery import chain

    result = chain(client.fail.si("no"), client.add.s(1), client.add.s(2)).delay()

    with pytest.raises(ValueError, match="no"):
        result.get(timeout=20)
    until(lambda: house.job(result.id).state is State.FAILED, "the last link to be failed")
    assert house.job(result.id).failure.code == "upstream-failed"


def test_a_retry_runs_the_same_job_again(client, house):
    result = client.flaky.delay(2)

    assert result.get(timeout=20) == 2
    assert house.job(result.id).attempt == 3
    assert house.kinds(result.id).count("retrying") == 2


def test_autoretry_waits_longer_each_time_and_then_fails(client, house):
    result = client.backoff.delay()

    with pytest.raises(ValueError, match="again"):
        result.get(timeout=30)
    events = house.ledger and house.kinds(result.id)
    assert events.count("retrying") == 2
    assert events[-1] == "failed"


def test_a_countdown_waits_in_the_ledger_and_not_in_a_worker(client, house):
    result = client.add.apply_async((1, 1), countdown=0.5)

    assert house.job(result.id).state is State.SCHEDULED
    assert result.get(timeout=20) == 2


def test_a_replaced_task_goes_on_under_the_same_id(client, house):
    result = client.replaced.delay()

    assert result.get(timeout=20) == 42
    assert house.job(result.id).task == "add"


def test_a_task_may_submit_and_its_child_is_known_as_its_own(client, house):
    parent = client.parent.delay()
    child = parent.get(timeout=20)

    assert client.app.AsyncResult(child).get(timeout=20) == 3
    assert house.job(child).parent == parent.id


def test_a_callback_runs_after_a_success(client, house):
    result = client.add.apply_async((1, 1), link=client.add.s(40))
    result.get(timeout=20)

    with house.ledger.reading() as connection:
        from sqlalchemy import text

        [linked] = connection.execute(text("SELECT id FROM jobs WHERE parent = :id"), {"id": result.id}).scalars()
    [job] = house.ended([linked])
    assert job.result == "42"


def test_a_soft_limit_fails_the_job_as_a_timeout(client, house):
    result = client.soft.delay()
    [job] = house.ended([result.id])

    assert (job.state, job.failure.code) == (State.FAILED, "timeout")


def test_a_hard_limit_ends_the_job_once(client, house):
    result = client.hard.delay()
    [job] = house.ended([result.id])

    assert (job.state, job.failure.code) == (State.FAILED, "timeout")
    assert "1" in job.failure.message
    assert house.kinds(result.id).count("failed") == 1


def test_revoke_on_a_queued_job_is_a_cancel_for_get(client, house):
    result = client.add.apply_async((1, 1), countdown=60)
    house.ledger.do(cancel, Asked(SYSTEM, result.id))

    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)


def test_what_a_task_reports_is_in_its_history_in_order(client, house):
    result = client.talk.delay()
    result.get(timeout=20)

    assert house.kinds(result.id) == ["submitted", "claimed", "started", "log", "message", "progress", "succeeded"]
    assert house.job(result.id).progress.value == 1


def test_remote_control_answers(client):
    [answer] = client.app.control.ping(timeout=5, limit=1)
    [(name, told)] = answer.items()

    assert name.startswith("one@")
    assert told == {"ok": "pong"}


def test_task_events_reach_a_listener(client, house):
    seen = []
    client.app.control.enable_events()
    with client.app.connection_for_read() as connection:
        receiver = client.app.events.Receiver(connection, handlers={"task-succeeded": seen.append})
        capture = receiver.itercapture(timeout=20, wakeup=False)
        next(capture)
        client.add.delay(5, 5)
        for _ in capture:
            if seen:
                break
        capture.close()  # or it would leave its mailbox whenever it is collected
    client.app.control.disable_events()
    assert seen[0]["result"] == "10"


def test_all_of_it_leaves_a_sound_ledger(house):
    house.all_ended()
    assert violations(house.ledger) == []


def test_a_chain_goes_on_when_a_person_retries_its_failed_link(client, house):
    from celery import chain

    result = chain(client.fail_once.si(), client.add.s(1), client.add.s(2)).delay()
    until(lambda: house.state(result.id) == "failed", "the last link to be given up")
    house.ledger.do(reopen, Asked(SYSTEM, result.parent.parent.id))

    until(lambda: house.state(result.id) == "succeeded", "the chain to go on")
    assert house.job(result.id).result == "13"


def test_a_chord_fires_when_a_person_retries_its_failed_member(client, house):
    from celery import chord

    os.unlink(house.environment["RAN"] + ".failed")
    result = chord([client.add.s(1, 1), client.fail_once.si()], client.total.s()).delay()
    until(lambda: house.state(result.id) == "failed", "the body to be given up")
    [member] = [each.id for each in result.parent.results if house.job(each.id).state is State.FAILED]
    house.ledger.do(reopen, Asked(SYSTEM, member))

    until(lambda: house.state(result.id) == "succeeded", "the body to run")
    assert house.job(result.id).result == "12"
    house.all_ended()
    assert violations(house.ledger) == []


def test_cancelling_a_link_cancels_what_was_to_follow_it(client, house):
    from celery import chain

    result = chain(client.add.s(1, 1).set(countdown=60), client.add.s(1), client.a_chord()).delay()
    [first] = house.ids("add", "scheduled")
    house.ledger.do(cancel, Asked(SYSTEM, first))

    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)


def test_a_retry_at_once_is_run_again(client, house):
    result = client.at_once.delay()

    assert result.get(timeout=20) == 1
