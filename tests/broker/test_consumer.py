"""The consumer of a worker: what is wrong with one queue costs the others nothing."""

import contextlib
import os
from functools import partial

import pytest
import servers
from instance import until

from celeriac import broker
from celeriac.broker import rabbitmq, sender_to
from celeriac.broker.consumer import QueueRefused
from celeriac.broker.letters import Letter, hint


@pytest.mark.rabbitmq
def test_a_queue_that_cannot_be_received_from_is_left_out_and_the_others_are_not(caplog: pytest.LogCaptureFixture):
    url, name = servers.rabbitmq().url, os.urandom(4).hex()
    locked, others = f"locked-{name}", [f"a-{name}", f"z-{name}"]
    received: list[Letter] = []
    with contextlib.closing(rabbitmq.connect(url, 0)) as somebody, contextlib.closing(sender_to(url, 10)()) as sender:
        somebody.channel().queue_declare(locked, exclusive=True)
        sender.send({queue: [hint("job")] for queue in others})
        consumer = broker.Consumer(partial(broker.receiver, url), received.extend)
        try:
            consumer.follow([locked, *others])
            until(lambda: {letter.queue for letter in received} == {*others}, f"both; {caplog.text}", 20)
            until(lambda: consumer.up, "a connection that stays")
        finally:
            consumer.close()

    assert f"The queue {locked} is left out for a minute" in caplog.text


@pytest.mark.rabbitmq
def test_many_queues_that_are_refused_cost_one_that_is_not_nothing():
    url, name = servers.rabbitmq().url, os.urandom(4).hex()
    locked, received = [f"locked-{number}-{name}" for number in range(10)], list[Letter]()
    with contextlib.closing(rabbitmq.connect(url, 0)) as somebody, contextlib.closing(sender_to(url, 10)()) as sender:
        for queue in locked:
            somebody.channel().queue_declare(queue, exclusive=True)
        assert sender.send({queue: [hint("job")] for queue in [*locked, name]}) == {name: 1} | dict.fromkeys(locked, 10)
        consumer = broker.Consumer(partial(broker.receiver, url), received.extend)
        try:
            consumer.follow([*locked, name])
            until(lambda: received and consumer.up, "the hint", 20)
        finally:
            consumer.close()

    assert {letter.queue for letter in received} == {name}


class Fickle:
    """A receiver whose connection ends as a queue is asked for, now and then."""

    ends = iter([True, False, True, False, *[True] * 50])

    def follow(self, queues: frozenset[str]) -> None:
        if "a" in queues and next(self.ends):
            raise QueueRefused("a", ConnectionError("gone"), certain=False)

    def receive(self, wake: int, seconds: float) -> list[Letter]:
        raise ConnectionError("gone")

    def close(self) -> None:
        pass


def test_a_queue_is_left_out_only_if_the_connection_ends_over_it_twice_in_a_row(caplog: pytest.LogCaptureFixture):
    fickle = Fickle()
    consumer = broker.Consumer(lambda: fickle, lambda letters: None)
    try:
        consumer.follow(["a", "b"])
        until(lambda: "left out" in caplog.text, "it to be left out", 30)
    finally:
        consumer.close()

    assert len(list(fickle.ends)) == 48  # at the second of two in a row
