"""The consumer of a worker: what is wrong with one queue costs the others nothing."""

import contextlib
import os
from functools import partial

import pytest
import servers
from instance import until

from celeriac import broker
from celeriac.broker import rabbitmq, sender_to
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
