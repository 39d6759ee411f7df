"""A node and its broker: a hint is answered by a claim that finds nothing more; strangers are adopted, or kept."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
import servers
from broker.test_carriers import received
from conformance.moves import accept, kinds, state_of
from databases import on_sqlite
from instance import until
from kombu.asynchronous import Hub
from sqlalchemy import text

from celeriac.broker import Publisher
from celeriac.broker.letters import Letter, hint
from celeriac.broker.redis import HELD, RedisReceiver, RedisSender
from celeriac.jobs import Claimed, new_id
from celeriac.ledger import Ledger
from celeriac.settings import Settings
from celeriac.states import State
from celeriac.worker import hints as node_hints
from celeriac.worker.node import Node
from worker.test_node import app

pytestmark = [pytest.mark.redis, on_sqlite]


class House:
    """A node with two slots, which keeps what it claims until it is told; and the broker it hears from."""

    source = None

    def __init__(self, ledger: Ledger) -> None:
        self.broker = servers.redis_server()
        self.client = self.broker.client()
        self.sender = RedisSender(self.broker.url, 1000)
        self.queue = f"q{os.urandom(6).hex()}"
        self.hub = Hub()
        exchange = SimpleNamespace(exchange=SimpleNamespace(type="direct"))
        shown: Any = SimpleNamespace(
            tasks=app.tasks, amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={self.queue: exchange})),
            settings=Settings(), reruns=lambda task: True,
        )  # fmt: skip
        pool = SimpleNamespace(num_processes=2, word="threads", blocks=False)
        worker = SimpleNamespace(hostname="w@h", hub=self.hub, pool=pool, app=shown)
        self.node = Node(worker, ledger, Settings(database_url=ledger.url, broker_url=self.broker.url))
        self.node.register()
        self.node.attach(self)
        self.until(lambda: self.node.hints.up, "the broker")

    def consumes(self, queue: str) -> bool:
        return True

    def deliver(self, job: Claimed) -> None:
        self.node.running[job.key] = SimpleNamespace(job=job, started_at=None, withdraw=lambda: True)

    def until(self, condition: Any, what: str) -> None:
        """Let the hub's thread work until something is so."""

        def so() -> bool:
            self.node.inbox.drain()
            return bool(condition())

        until(so, what, 20)

    def look(self) -> None:
        """Follow the queues, as the transport has it do every second."""
        self.node.look()

    def lies(self) -> int:
        """Return how many messages lie in the broker, those that somebody holds included."""
        held = [self.client.llen(key) for key in self.client.keys(f"{HELD}*{self.queue}")]
        return int(self.client.llen(self.queue)) + sum(held)

    def held(self) -> list[str]:
        return sorted(job.id for job in self.node.held.values())

    def stop(self) -> None:
        self.node.stop()
        self.sender.close()
        self.client.close()
        self.hub.close()


@pytest.fixture
def house(ledger: Ledger) -> Iterator[House]:
    made = House(ledger)
    made.look()
    yield made
    made.stop()


@pytest.fixture
def publisher(house: House) -> Iterator[Publisher]:
    """What the node sends hints by."""
    with closing(Publisher(lambda: lambda: RedisSender(house.broker.url, 1000), 1000, lambda queues: None)) as made:
        house.node.hints._publisher = made
        yield made


def hints(house: House, *jobs: str | None) -> None:
    house.sender.send({house.queue: [hint(job) for job in jobs]})


def reasons(ledger: Ledger) -> list[str]:
    with ledger.reading() as connection:
        return [row.reason for row in connection.execute(text("SELECT reason FROM dead_letters ORDER BY position"))]


def message(body: object = ([1, 2], {}, {}), **headers: object) -> bytes:
    """A message as kombu puts it into a list."""
    return json.dumps({
        "body": base64.b64encode(json.dumps(body).encode()).decode(), "content-type": "application/json",
        "content-encoding": "utf-8", "headers": {"task": "add", "id": "stranger", "retries": 0, **headers},
        "properties": {"body_encoding": "base64", "priority": 5},
    }).encode()  # fmt: skip


def test_a_hint_makes_the_node_claim_and_is_gone_when_nothing_is_left(house: House, ledger: Ledger):
    id = accept(ledger, queue=house.queue)
    hints(house, id)

    house.until(lambda: house.held() == [id], "the claim")
    house.until(lambda: house.lies() == 0, "the acknowledgement")
    assert reasons(ledger) == []


def test_it_claims_the_best_jobs_and_not_the_one_that_was_named(house: House, ledger: Ledger):
    named, *_ = (accept(ledger, queue=house.queue) for _ in range(2))
    best = [accept(ledger, queue=house.queue, priority=9) for _ in range(2)]
    hints(house, named)

    house.until(lambda: house.held() == sorted(best), "the claim")


def test_a_node_without_room_keeps_one_hint_and_leaves_the_others(house: House, ledger: Ledger):
    ids = [accept(ledger, queue=house.queue) for _ in range(6)]
    hints(house, *ids)
    house.until(lambda: len(house.held()) == 2, "the claim")
    house.until(lambda: not house.node._claiming, "the answer")

    assert (house.client.llen(house.queue), house.lies()) == (5, 6)


def test_while_claims_come_up_short_the_next_hint_need_not_wait_for_one(house: House, ledger: Ledger):
    hints(house, accept(ledger, queue=house.queue))
    house.until(lambda: house.held() and not house.node.sated, "a claim that came up short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.node.group, "add", lambda *entry, **_: None)  # a claim that takes long
        hints(house, *(accept(ledger, queue=house.queue) for _ in range(3)))

        house.until(lambda: len(house.node.hints.kept()) == 3 and house.lies() == 0, "all of them")


def test_a_node_whose_claims_are_not_answered_leaves_most_hints_to_others(house: House, ledger: Ledger):
    hints(house, None)
    house.until(lambda: not house.node.sated and house.lies() == 0, "a claim that came up short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.node.group, "add", lambda *entry, **_: None)
        hints(house, *[None] * 50)
        house.until(lambda: len(house.node.hints.kept()) > node_hints.AHEAD, "as many as it takes")

        assert house.client.llen(house.queue) == 50 - node_hints.AHEAD - 1  # and one that it keeps


def test_when_a_claim_is_full_a_hint_is_left_for_others(house: House, ledger: Ledger, publisher: Publisher):
    """The one that led to it was acknowledged as it came, and told of more than this node takes."""
    hints(house, None)
    house.until(lambda: not house.node.sated and house.lies() == 0, "a claim that came up short")
    for _ in range(6):
        accept(ledger, queue=house.queue)
    hints(house, None)

    house.until(lambda: len(house.held()) == 2, "the claim")
    house.until(lambda: house.client.llen(house.queue) == 1, "a hint for others, beside the one that it keeps")
    assert [letter.settled for letter, _ in house.node.hints.kept()] == [False]


def test_a_hint_that_came_while_a_full_claim_was_under_way_is_left_for_others(
    house: House, ledger: Ledger, publisher: Publisher
):
    hints(house, None)
    house.until(lambda: not house.node.sated and house.lies() == 0, "a claim that came up short")
    for _ in range(6):
        accept(ledger, queue=house.queue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.node.group, "add", lambda *entry, **_: handed_in.append(entry))
        handed_in: list[Any] = []
        house.node.fetch()
        hints(house, None)
        house.until(lambda: house.node.hints.kept() and house.lies() == 0, "the hint, acknowledged as it came")
    [(move, request, answered)] = handed_in
    answered(ledger.do(move, request))

    house.until(lambda: house.client.llen(house.queue) == 1, "a hint for others, beside the one that it keeps")


def test_a_node_that_stops_leaves_a_hint_for_what_it_has_not_claimed(
    house: House, ledger: Ledger, publisher: Publisher
):
    hints(house, None)
    house.until(lambda: not house.node.sated and house.lies() == 0, "a claim that came up short")
    accept(ledger, queue=house.queue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.node.group, "add", lambda *entry, **_: None)  # a claim that is never answered
        hints(house, None)
        house.until(lambda: house.node.hints.kept() and house.lies() == 0, "the hint, acknowledged as it came")
    house.node.stop()

    until(lambda: house.lies() == 1, "a hint for others")


def test_a_hint_that_a_node_without_room_keeps_for_long_goes_to_another(house: House, ledger: Ledger, monkeypatch):
    hints(house, *[accept(ledger, queue=house.queue) for _ in range(3)])
    house.until(lambda: len(house.held()) == 2 and not house.node._claiming, "the claim")

    def goes_to(other: RedisReceiver) -> list[Letter]:
        house.look()
        letters = received(other, 0.2)
        other.settle(letters)
        return letters

    with closing(RedisReceiver(house.broker.url)) as other:
        other.follow(frozenset({house.queue}))
        house.until(lambda: not goes_to(other) and house.lies() == 1, "the hints that nobody keeps")

        monkeypatch.setattr(node_hints, "KEEP_SECONDS", 0.0)
        house.until(lambda: goes_to(other), "the one that was kept")


def test_a_hint_that_comes_when_room_has_shrunk_is_answered_as_soon_as_there_is_some(house: House, ledger: Ledger):
    running = accept(ledger, queue=house.queue)
    hints(house, running)
    house.until(lambda: house.held() == [running] and house.lies() == 0, "a claim that left room")
    id = accept(ledger, queue=house.queue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.node, "room", lambda: 0)
        hints(house, id)
        house.until(house.node.hints.kept, "the hint")
    assert house.held() == [running]

    [job] = house.node.held.values()
    house.node.give_back(job)
    house.until(lambda: id in house.held(), "another claim")


def test_hints_that_are_out_of_date_go_all_at_once(house: House, ledger: Ledger):
    hints(house, *[None] * 250)

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    assert house.held() == []
    assert house.node._turn < 25  # claims


def test_a_hint_that_came_while_a_claim_was_under_way_is_answered_by_another(house: House, ledger: Ledger):
    with pytest.MonkeyPatch.context() as patch:
        handed_in: list[Any] = []
        patch.setattr(house.node.group, "add", lambda *entry, **_: handed_in.append(entry))
        house.node.fetch()
        [(_, _, answered)] = handed_in
    id = accept(ledger, queue=house.queue)
    hints(house, id)
    house.until(house.node.hints.kept, "the hint")

    house.node._again = False
    answered([])  # its claim had seen nothing
    assert house.node.hints.kept()
    house.look()
    house.until(lambda: house.held() == [id], "another claim")
    house.until(lambda: house.lies() == 0, "the acknowledgement")


def test_a_hint_for_a_job_that_the_ledger_does_not_have_is_kept_as_a_dead_letter(house: House, ledger: Ledger):
    hints(house, "gone")

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    assert reasons(ledger) == ["The ledger has no job gone. Was it restored from an older backup?"]


def test_a_hint_for_a_job_that_somebody_else_has_is_no_dead_letter(house: House, ledger: Ledger):
    id = accept(ledger, queue="elsewhere")
    hints(house, id)

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    assert reasons(ledger) == []


def test_a_strangers_message_is_a_job_with_all_that_it_said(house: House, ledger: Ledger):
    house.client.lpush(house.queue, message(root_id="root", parent_id="parent", eta="2100-01-01T00:00:00"))

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    ask = text("SELECT state, priority, root, parent, owner, run_at FROM jobs WHERE id = 'stranger'")
    with ledger.reading() as connection:
        row = connection.execute(ask).one()
    assert row[:5] == (State.SCHEDULED, 5, "root", "parent", "system")
    assert row.run_at == 4_102_444_800_000_000


def test_a_strangers_message_that_comes_twice_is_one_job(house: House, ledger: Ledger):
    house.client.lpush(house.queue, message(), message())

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    assert reasons(ledger) == []
    assert kinds(ledger, "stranger")[:2] == ["submitted", "claimed"]


def test_many_strangers_are_adopted_together(house: House, ledger: Ledger):
    house.client.lpush(house.queue, *(message(id=new_id()) for _ in range(350)))

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    with ledger.reading() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM jobs")).scalar_one() == 350


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\xff", "of no type"),
        (message({"x": 1}), "args, kwargs, embed"),
        (message(task=None), "'task' is missing"),
        (message(id="x" * 300), "'id'"),
    ],
)
def test_what_nobody_can_read_is_kept_with_its_reason(house: House, ledger: Ledger, raw: bytes, reason: str):
    house.client.lpush(house.queue, raw)

    house.until(lambda: house.lies() == 0, "the acknowledgement")
    assert len(reasons(ledger)) == 1
    assert reason in reasons(ledger)[0]


def test_a_node_that_stops_leaves_its_hints_to_others(house: House, ledger: Ledger):
    ids = [accept(ledger, queue=house.queue) for _ in range(3)]
    hints(house, *ids)
    house.until(lambda: len(house.held()) == 2, "the claim")
    house.node.stop()

    assert house.client.llen(house.queue) == 3
    assert {state_of(ledger, id) for id in ids} == {State.QUEUED}
