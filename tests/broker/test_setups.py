"""The same life on every set-up: the ledger alone on SQLite and Postgres, and with RabbitMQ or Redis beside it.

Whatever happens to a broker, the ledger decides who runs what, in which order, and that all of it ends.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Any

import celery
import jobs_for_tests
import msgspec
import pytest
import servers
from instance import Instance, on, program, until
from nursery import Nursery
from sqlalchemy import text

from celeriac.access import SYSTEM
from celeriac.app import Tasks, load_app
from celeriac.app.tasks import JobRequest
from celeriac.broker import rabbitmq, sender_to
from celeriac.broker.letters import hint
from celeriac.instance import publisher_of
from celeriac.jobs import Event, Submission
from celeriac.ledger import purge, queues, read, submit
from celeriac.states import State, is_final


@pytest.fixture(scope="module", params=on())
def house(
    request: pytest.FixtureRequest, instance_on: Callable[..., AbstractContextManager[Instance]], nursery: Nursery
) -> Iterator[Instance]:
    with instance_on(request.param, nursery=nursery) as made:
        made.keeper()
        made.worker(queues="default,ordered,wiped", concurrency=2)
        yield made


@pytest.fixture
def brokered(house: Instance) -> servers.Server:
    """The broker of the set-up."""
    return servers.redis_server() if house.settings.broker_url.startswith("redis") else servers.rabbitmq()


beside_postgres = pytest.mark.parametrize("house", on("redis", "rabbitmq"), indirect=True)


def echoes(house: Instance, count: int, **changes: Any) -> list[Submission]:
    tasks = Tasks(load_app(house.app))
    made = tasks.submission(JobRequest("echo", msgspec.json.encode({"value": 1})), "ann")
    return [replace(made, id=f"{made.id[:24]}{os.urandom(6).hex()}", **changes) for _ in range(count)]


def accept(house: Instance, submissions: list[Submission]) -> list[str]:
    with house.ledger.transaction() as tx:
        return [receipt.id for receipt in submit(tx, submissions)]


def claimed_before(house: Instance, queue: str, ids: list[str]) -> int:
    """Return how many other jobs of a queue were claimed before the last of these."""
    last = max(event.at for id in ids for event in history(house, id) if event.kind == "claimed")
    ask = text("SELECT id FROM jobs WHERE queue = :queue AND claimed_at < :last")
    with house.ledger.reading() as connection:
        return len({row.id for row in connection.execute(ask, {"queue": queue, "last": last})} - set(ids))


def history(house: Instance, id: str) -> list[Event]:
    return read.history(house.ledger, SYSTEM, id, 0, 100)


def test_what_is_submitted_runs(house: Instance):
    [one, *_] = house.ended(house.submit("add", x=1, y=2) + house.submit("parent"))

    assert (one.state, one.result) == (State.SUCCEEDED, "3")


@pytest.mark.parametrize("many", [3_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_the_most_urgent_jobs_run_first_and_each_owners_in_turn_however_many_wait(house: Instance, many: int):
    house.ledger.do(queues.pause, "ordered")
    for _ in range(many // 1000):
        accept(house, echoes(house, 1000, queue="ordered"))
    others = accept(house, echoes(house, 3, queue="ordered", owner="bob"))
    urgent = accept(house, echoes(house, 3, queue="ordered", priority=9))
    house.ledger.do(queues.resume, "ordered")
    house.ended(urgent + others)

    overtaken = claimed_before(house, "ordered", urgent), claimed_before(house, "ordered", others)
    clear(house, "ordered")
    assert overtaken[0] == 0
    assert overtaken[1] < 300


def clear(house: Instance, queue: str) -> None:
    """Cancel what waits in a queue."""
    left = True
    while left:
        with house.ledger.transaction() as tx:
            left = purge(tx, queue, 500) > 0
    house.all_ended()


def test_a_paused_queue_rests_whatever_is_hinted_at(house: Instance):
    house.ledger.do(queues.pause, "ordered")
    waiting = accept(house, echoes(house, 20, queue="ordered"))
    house.ended(house.submit("add", count=5, x=1, y=2))  # others go on

    assert {house.state(id) for id in waiting} == {State.QUEUED}
    house.ledger.do(queues.resume, "ordered")
    assert {job.state for job in house.ended(waiting)} == {State.SUCCEEDED}


@beside_postgres
def test_a_job_that_a_program_delays_is_hinted_at(house: Instance, monkeypatch: pytest.MonkeyPatch):
    with program(house, jobs_for_tests.app, monkeypatch):
        assert jobs_for_tests.app.settings.broker_url == house.settings.broker_url
        publisher = publisher_of(jobs_for_tests.app.ledger)
        before = publisher.sent
        assert jobs_for_tests.add.delay(40, 2).get(timeout=20) == 42
        until(lambda: publisher.sent > before, "the hint")


@beside_postgres
@pytest.mark.parametrize("how", ["its queues go", pytest.param("all of it goes", marks=pytest.mark.soak)])
def test_a_wiped_broker_costs_no_job(house: Instance, brokered: servers.Server, how: str):
    def wipe() -> None:
        if how == "its queues go" and isinstance(brokered, servers.RabbitMQ):
            drop(brokered, "wiped", "default")
        else:
            brokered.wipe()

    house.ledger.do(queues.pause, "wiped")
    waiting = accept(house, echoes(house, 300, queue="wiped"))
    wipe()
    house.ledger.do(queues.resume, "wiped")
    wipe()

    assert {job.state for job in house.ended(waiting + house.submit("add", x=1, y=2))} == {State.SUCCEEDED}


def drop(broker: servers.RabbitMQ, *names: str) -> None:
    """Delete queues, in the midst of their work."""
    with closing(rabbitmq.connect(broker.url, 0)) as connection:
        channel = connection.channel()
        for name in names:
            channel.queue_delete(name)


@beside_postgres
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_every_pool_answers_hints(house: Instance, brokered: servers.Server, pool: str):
    queue = f"{pool}-{os.urandom(3).hex()}"
    with closing(sender_to(brokered.url, 1000)()) as sender:
        sender.send({queue: [hint()] * 30})
        house.worker(pool, queues=queue, pool=pool)
        done = house.ended(accept(house, echoes(house, 20, queue=queue)))
        until(lambda: sender.send({queue: []}) == {queue: 0}, f"the answers; {house.log(pool)}")
    house.kill(pool)

    assert {job.state for job in done} == {State.SUCCEEDED}


@beside_postgres
def test_work_goes_on_while_the_broker_is_away_and_hints_when_it_is_back(house: Instance, brokered: servers.Server):
    house.ended(house.submit("add", x=1, y=2))
    until(lambda: publisher_of(house.ledger).up, "the publisher")
    brokered.kill()
    try:
        during = house.ended(house.submit("add", count=20, x=1, y=2))
        house.worker("late", queues="late")
        during += house.ended(accept(house, echoes(house, 3, queue="late")))
        until(lambda: "cannot be asked for work" in house.log("late"), "it to miss the broker")
    finally:
        brokered.start()
    assert {job.state for job in during} == {State.SUCCEEDED}

    until(lambda: "can be asked for work again" in house.log("late") and publisher_of(house.ledger).up, "the broker")
    assert {job.state for job in house.ended(house.submit("add", count=20, x=1, y=2))} == {State.SUCCEEDED}
    house.kill("late")


def test_a_job_whose_submitter_dies_before_it_has_told_anybody_runs(house: Instance):
    code = "import jobs_for_tests; jobs_for_tests.add.delay(40, 2)"
    environment = {**house.environment, "CELERIAC_FAILPOINT": "after-commit"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=house.home, timeout=60)
    assert done.returncode == -9

    until(lambda: "add:40:2" in house.runs("add:40"), "the job to run")


@beside_postgres
@pytest.mark.parametrize("step", ["after-commit:3", "before-ack"])
def test_a_strangers_message_becomes_one_job_whatever_step_its_worker_is_killed_at(
    house: Instance, brokered: servers.Server, step: str
):
    queue = f"strangers-{os.urandom(3).hex()}"
    doomed = house.worker("doomed", queues=queue, CELERIAC_FAILPOINT=step, wait=False)
    ids = publish(brokered, queue, 5)
    until(lambda: doomed.poll() is not None, f"the worker to die at {step}; {house.log('doomed')}")
    house.worker("heir", queues=queue)

    until(lambda: all(is_final(house.state(id)) for id in ids), f"adoption; {house.log('heir')}")
    with house.ledger.reading() as connection:
        found = connection.execute(text("SELECT id, state FROM jobs WHERE queue = :queue"), {"queue": queue}).all()
    assert sorted(found) == sorted((id, State.SUCCEEDED) for id in ids)
    house.kill("heir")


def publish(broker: servers.Server, queue: str, count: int) -> list[str]:
    """Publish as a program does that knows nothing of us."""
    others = celery.Celery("others", broker=broker.url, set_as_current=False)
    others.conf.task_create_missing_queue_type = "quorum"
    with others.connection_for_write() as connection:
        sent = [others.send_task("echo", (n,), queue=queue, connection=connection).id for n in range(count)]
    others.close()
    return sent


@beside_postgres
def test_what_nobody_can_read_is_kept_with_its_reason(house: Instance, brokered: servers.Server):
    queue = f"unread-{os.urandom(3).hex()}"
    with closing(sender_to(brokered.url, 1000)()) as ours:
        ours.send({queue: [hint("gone")]})
    others = celery.Celery("others", broker=brokered.url, set_as_current=False)
    with others.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish({"id": "old", "task": "add", "args": [1]}, routing_key=queue, serializer="json")
        producer.publish([1], routing_key=queue, serializer="pickle", headers={"task": "add", "id": "pickled"})
    others.close()
    house.worker("clerk", queues=queue)

    ask = text("SELECT reason FROM dead_letters WHERE queue = :queue")

    def reasons() -> list[str]:
        with house.ledger.reading() as connection:
            return sorted(row.reason for row in connection.execute(ask, {"queue": queue}))

    until(lambda: len(reasons()) >= 3, f"three reasons; {house.log('clerk')}")
    assert [reason[:30] for reason in reasons()] == [
        "It is application/x-python-ser", "It is of Celery's message prot", "The ledger has no job gone. Wa",
    ]  # fmt: skip
