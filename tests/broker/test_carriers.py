"""What speaks to RabbitMQ and Redis, on real servers: nothing is lost between two hands, and no queue overflows."""

import socket
import time
from collections.abc import Callable
from contextlib import closing

import celery
import pytest
import servers
from amqp.exceptions import NotFound
from instance import until

from celeriac.broker import Receiver, Sender, rabbitmq
from celeriac.broker.letters import Letter, hint, meaning
from celeriac.broker.redis import ALIVE, RedisReceiver

Sending, Receiving = Callable[..., Sender], Callable[..., Receiver]


def received(receiver: Receiver, seconds: float = 10) -> list[Letter]:
    """Wait for letters, as the consumer does, with nothing to wake it."""
    wake = socket.socketpair()
    try:
        deadline = time.monotonic() + seconds
        while not (letters := receiver.receive(wake[0].fileno(), 0.2)) and time.monotonic() < deadline:
            pass
        return letters
    finally:
        for end in wake:
            end.close()


def jobs(letters: list[Letter]) -> list[str | None]:
    return [meaning(letter, 1000).job for letter in letters]


def hints(*names: str) -> list[bytes]:
    return [hint(name) for name in names]


def abandoned(receiver: Receiver) -> None:
    """Leave a receiver as a killed process does."""
    if isinstance(receiver, RedisReceiver):
        for connection, _ in receiver._waits.values():
            connection.disconnect()
        receiver._client.delete(ALIVE + receiver._name)  # ten seconds later
        receiver._queues, receiver._waits = frozenset(), {}
    else:
        receiver._connection.collect()


def test_what_is_sent_is_received_and_gone_when_it_is_settled(queue: str, sending: Sending, receiving: Receiving):
    one = receiving(queue)
    assert sending().send({queue: hints("a")}) == {queue: 1}

    letters = received(one)
    assert jobs(letters) == ["a"]
    one.settle(letters)
    one.close()

    assert received(receiving(queue), 0.3) == []


@pytest.mark.rabbitmq
def test_a_heartbeat_is_no_reason_to_wait_for_what_follows_it(queue: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rabbitmq, "HEARTBEAT_SECONDS", 2)  # then one comes each second
    with closing(rabbitmq.RabbitReceiver(servers.rabbitmq().url)) as one:
        one.follow(frozenset({queue}))
        monkeypatch.setattr(rabbitmq, "_ANSWER_SECONDS", 0.2)
        before = one._connection.bytes_recv

        until(lambda: received(one, 0.1) == [] and one._connection.bytes_recv > before + 2, "heartbeats", 10)


def test_the_next_of_a_queue_comes_when_the_one_before_is_settled(queue: str, sending: Sending, receiving: Receiving):
    one, other = receiving(queue, f"{queue}b"), f"{queue}b"
    sending().send({queue: hints("a", "b"), other: hints("c")})
    first = received(one)
    while len(first) < 2:
        first += received(one)

    assert sorted(jobs(first)) == ["a", "c"]
    assert received(one, 0.3) == []
    one.settle([letter for letter in first if letter.queue == queue])
    assert jobs(received(one)) == ["b"]


def test_more_are_received_when_they_are_asked_for(queue: str, sending: Sending, receiving: Receiving):
    one = receiving(queue)
    sending().send({queue: hints(*"abcde")})
    assert jobs(received(one)) == ["a"]

    assert jobs(one.more(queue, 3)) == ["b", "c", "d"]
    assert jobs(one.more(queue, 3)) == ["e"]
    assert one.more(queue, 3) == []


def test_what_a_dead_receiver_held_is_received_by_another(queue: str, sending: Sending, receiving: Receiving):
    dead = receiving(queue)
    sending().send({queue: hints(*"abc")})
    assert jobs([*received(dead), *dead.more(queue, 1)]) == ["a", "b"]

    abandoned(dead)

    other = receiving(queue)
    found = [*received(other), *other.more(queue, 9)]
    assert sorted(jobs(found)) == ["a", "b", "c"]


def test_a_receiver_that_closes_leaves_nothing_behind(queue: str, sending: Sending, receiving: Receiving):
    one = receiving(queue)
    sending().send({queue: hints("a")})
    assert received(one)
    one.close()

    assert jobs(received(receiving(queue))) == ["a"]


def test_what_is_put_back_is_received_again(queue: str, sending: Sending, receiving: Receiving):
    one, other = receiving(queue), receiving()
    sending().send({queue: hints("a")})
    letters = received(one)
    one.follow(frozenset())  # else RabbitMQ may well give it to this one again
    one.put_back(letters)
    other.follow(frozenset([queue]))

    assert jobs(received(other)) == ["a"]


def test_a_queue_that_is_no_longer_followed_gives_nothing(queue: str, sending: Sending, receiving: Receiving):
    one = receiving(queue)
    one.follow(frozenset([f"{queue}b"]))
    sending().send({queue: hints("a")})

    assert received(one, 0.3) == []


def test_what_was_received_is_settled_although_its_queue_is_no_longer_followed(
    queue: str, sending: Sending, receiving: Receiving
):
    one, other = receiving(queue), f"{queue}b"
    sending().send({queue: hints("a")})
    letters = received(one)
    one.follow(frozenset([other]))
    one.settle(letters)
    sending().send({other: hints("b")})

    assert jobs(received(one)) == ["b"]


@pytest.mark.rabbitmq
def test_to_ask_how_much_lies_in_a_queue_makes_none(queue: str):
    from celeriac.broker.rabbitmq import RabbitSender, connect

    url = servers.rabbitmq().url
    with closing(RabbitSender(url, 10)) as sender, closing(connect(url, 0)) as connection:
        assert sender.fill({queue: 0}) == {queue: 0}
        with pytest.raises(NotFound):
            connection.channel().queue_declare(queue, passive=True)
        sender.send({queue: hints("a")})
        assert sender.fill({queue: 0}) == {queue: 1}


def test_senders_never_exceed_the_window(queue: str, sending: Sending):
    senders = [sending(window=20) for _ in range(4)]
    for one in senders:
        one.send({queue: []})  # all see it empty at the same time
    for _ in range(5):
        for one in senders:
            depth = one.send({queue: [hint("a")] * 50})[queue]
            assert depth <= 20

    assert senders[0].fill({queue: 100})[queue] == 100
    assert senders[0].send({queue: [hint("a")] * 50})[queue] == 100


def test_a_queue_is_filled_to_a_level_and_no_further(queue: str, sending: Sending):
    one = sending()

    assert [one.fill({queue: level})[queue] for level in (3, 2, 5, 0)] == [3, 3, 5, 5]
    assert one.sent == 5


def test_plain_celery_publishes_what_can_be_adopted(
    broker: servers.Server, queue: str, receiving: Receiving, wait_until: Callable[..., None]
):
    app = celery.Celery("others", broker=broker.url, set_as_current=False)
    app.conf.task_create_missing_queue_type = "quorum"  # as docs/brokers.md says; Redis does not mind
    one, found = receiving(queue), []

    def receive() -> bool:
        letters = received(one)
        one.settle(letters)
        found.extend(letters)
        return len(found) == 2

    with app.connection_for_write() as connection:
        for number, priority in enumerate([0, 6]):
            app.send_task("add", (number, 2), queue=queue, priority=priority, connection=connection)
    wait_until(receive, "both messages")

    said = [meaning(letter, 1000) for letter in found]
    assert sorted((one.body[0], one.properties["priority"]) for one in said) == [([0, 2], 0), ([1, 2], 6)]
    assert {one.headers["task"] for one in said} == {"add"}
    app.close()


def test_after_a_wipe_hints_are_sent_and_received_as_before(
    broker: servers.Server, queue: str, sending: Sending, receiving: Receiving
):
    if isinstance(broker, servers.RabbitMQ):
        one = sending()
        one.send({queue: hints("a")})
        one._asking.queue_delete(queue)
    else:
        one = sending()
        one.send({queue: hints("a")})
        broker.wipe()

    assert one.fill({queue: 1})[queue] <= 1
    one.fill({queue: 1})
    assert jobs(received(receiving(queue))) == [None]


@pytest.mark.rabbitmq
def test_a_classic_queue_that_exists_is_used_as_it_is(queue: str):
    from celeriac.broker.rabbitmq import RabbitReceiver, RabbitSender, connect

    url = servers.rabbitmq().url
    connection = connect(url, 0)
    connection.channel().queue_declare(queue, durable=True, auto_delete=False)
    connection.close()
    sender, receiver = RabbitSender(url, 10), RabbitReceiver(url)
    receiver.follow(frozenset([queue, f"{queue}b"]))
    sender.send({queue: hints("a"), f"{queue}b": hints("b")})
    found = received(receiver)
    while len(found) < 2:
        found += received(receiver)

    assert sorted(jobs(found)) == ["a", "b"]
    sender.close()
    receiver.close()


@pytest.mark.redis
def test_what_is_no_message_at_all_is_received_with_its_bytes(queue: str):
    server = servers.redis_server()
    client, receiver = server.client(), RedisReceiver(server.url)
    receiver.follow(frozenset([queue]))
    for raw in (b"\xff", b"[]", b'{"body": 3, "properties": {}}', b'{"headers": 1, "body": "", "properties": {}}'):
        client.lpush(queue, raw)
        [letter] = received(receiver)
        assert (letter.body, letter.content_type) == (raw, "")
        receiver.settle([letter])
    assert client.keys(f"*{queue}*") == []
    receiver.close()
    client.close()
