"""Remote control, routing and rate limits, with two workers that are told what to do while they run."""

import contextlib
from itertools import pairwise

import pytest
from celery import signals
from instance import Instance, on, program, until

from celeriac.errors import Unroutable
from celeriac.ledger import read
from celeriac.states import State


@pytest.fixture(scope="module", params=on())
def place(request, instance_on, nursery) -> Instance:
    with instance_on(request.param, app="jobs_for_remote:app", nursery=nursery) as made:
        made.keeper()
        made.worker("one", queues="default,videos,images,everybody", pool="threads")
        made.worker("two", queues="default,everybody", pool="threads")
        for name in ("one", "two"):
            until(lambda name=name: "ready." in made.log(name), f"{name} to listen")
        yield made


@pytest.fixture
def remote(place, monkeypatch):
    import jobs_for_remote

    with program(place, jobs_for_remote.app, monkeypatch):
        yield jobs_for_remote


def ask(remote, command: str, **arguments):
    """Return the answers of both workers by the first part of their names."""
    answers = remote.app.control.broadcast(command, arguments, reply=True, timeout=5, limit=2)
    return {name.partition("@")[0]: told for answer in answers for name, told in answer.items()}


def test_every_worker_answers(remote):
    assert ask(remote, "ping") == {"one": {"ok": "pong"}, "two": {"ok": "pong"}}


@pytest.mark.parametrize("command", ["active", "reserved", "scheduled", "registered", "stats", "conf", "active_queues"])
def test_workers_can_be_inspected(remote, command):
    told = ask(remote, command)

    assert set(told) == {"one", "two"}
    if command == "registered":
        assert any(each.startswith("limited") for each in told["one"])
    if command == "active_queues":
        assert {"default", "videos", "images"} <= {queue["name"] for queue in told["one"]}


def test_a_running_job_can_be_asked_for(remote, place):
    result = remote.free.delay(3)
    until(lambda: place.job(result.id).started_at, "it to start")
    told = ask(remote, "query_task", ids=[result.id])

    assert [state for each in told.values() for state, _ in each.values()] == ["active"]
    assert sum(len(jobs) for jobs in ask(remote, "active").values()) == 1


def test_messages_for_an_exchange_reach_the_queue_that_is_bound_to_it(remote):
    assert remote.where.apply_async(exchange="media", routing_key="video.short.new").get(timeout=20) == "videos"
    assert remote.where.apply_async(exchange="media", routing_key="image.png").get(timeout=20) == "images"


def test_a_message_that_no_queue_takes_is_refused_in_words(remote):
    with pytest.raises(Unroutable, match=r"'media' with the routing key 'image.a.b'"):
        remote.where.apply_async(exchange="media", routing_key="image.a.b")


def test_a_broadcast_reaches_every_worker_and_leaves_no_row(remote, place):
    result = remote.shout.apply_async(queue="everybody")
    until(lambda: len(place.runs("shout:")) == 2, "both to run it")

    assert {run.partition("@")[0] for run in place.runs("shout:")} == {"shout:one", "shout:two"}
    assert place.state(result.id) == "unknown"


def test_a_queue_added_while_a_worker_runs_is_claimed_from_and_shown(remote, place):
    result = remote.where.apply_async(queue="late")
    ask(remote, "add_consumer", queue="late")

    assert result.get(timeout=20) == "late"
    until(lambda: all("late" in worker.queues for worker in read.all_workers(place.ledger)), "the ledger to know")
    ask(remote, "cancel_consumer", queue="late")
    until(lambda: not any("late" in worker.queues for worker in read.all_workers(place.ledger)), "the ledger to know")


def test_a_pool_that_grows_is_shown(remote, place):
    ask(remote, "pool_grow", n=3)
    until(lambda: {worker.concurrency for worker in read.all_workers(place.ledger)} == {5}, "the ledger to know")
    ask(remote, "pool_shrink", n=3)
    until(lambda: {worker.concurrency for worker in read.all_workers(place.ledger)} == {2}, "the ledger to know")


def test_a_rate_limit_spaces_out_a_tasks_jobs_and_nobody_elses(remote, place):
    limited = [remote.limited.delay().id for _ in range(8)]
    free = [remote.free.delay().id for _ in range(30)]
    place.ended(free)
    waiting = [id for id in limited if place.state(id) == "queued"]
    assert waiting  # two a second on each of two workers, while the others ran at once

    assert ask(remote, "rate_limit", task_name="limited", rate_limit="1000/s")["one"] == {
        "ok": "new rate limit set successfully"
    }
    jobs = place.ended(limited)
    begun = sorted((job.worker, job.started_at) for job in jobs if job.id not in waiting)
    gaps = [later - sooner for (one, sooner), (other, later) in pairwise(begun) if one == other]
    assert all(gap > 450_000 for gap in gaps)


def test_a_purge_cancels_what_waits_and_says_how_much(remote, place):
    ids = [remote.free.apply_async(queue="nobody").id for _ in range(3)]
    ids.append(remote.free.apply_async(queue="nobody", countdown=600).id)
    with remote.app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("nobody") == 4

    assert {place.job(id).state for id in ids} == {State.CANCELLED}


def test_events_tell_a_jobs_whole_life(remote, place):
    """Who listens is looked up once a second, so the first job after the listener came may go unheard."""
    lives: dict[str, list[str]] = {}
    ask(remote, "enable_events")

    def hear(event) -> None:
        if "uuid" in event:
            lives.setdefault(event["uuid"], []).append(event["type"])
        else:  # a heartbeat
            remote.free.delay()

    with remote.app.connection_for_read() as connection:
        receiver = remote.app.events.Receiver(connection, handlers={"*": hear})
        with contextlib.closing(receiver.itercapture(timeout=20, wakeup=False)) as capture:
            for _ in capture:
                if any({"task-sent", "task-succeeded"} <= set(life) for life in lives.values()):
                    break
    ask(remote, "disable_events")
    [life] = [life for life in lives.values() if {"task-sent", "task-succeeded"} <= set(life)]
    life.remove("task-sent")  # by another process: heard before or after the rest
    assert life == ["task-received", "task-started", "task-succeeded"]


def test_headers_that_a_publish_signal_adds_reach_the_task(remote):
    def add_trace(headers=None, **_):
        headers["trace"] = "abc"

    published = []
    signals.before_task_publish.connect(add_trace)
    signals.after_task_publish.connect(lambda **told: published.append(told["headers"]["trace"]), weak=False)
    try:
        assert remote.headers.delay().get(timeout=20) == "abc"
    finally:
        signals.before_task_publish.disconnect(add_trace)
    assert published == ["abc"]


def test_a_worker_leaves_tasks_it_does_not_know_to_one_that_does(remote, place):
    known = remote.app.send_task("free")
    unknown = remote.app.send_task("echo", (1,))
    place.ended([remote.app.send_task("free").id, known.id])
    assert place.state(unknown.id) == "queued"

    place.worker("new", app="jobs_for_tests:app")
    [job] = place.ended([unknown.id])
    assert job.worker.startswith("new@")
