"""Both brokers for the tests of what speaks to them: real servers, a queue of its own for each test."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import servers
from nursery import Nursery

from celeriac.broker import Receiver, Sender, receiver, sender_to

BROKERS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("redis", "rabbitmq")]


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> servers.Server:
    return servers.redis_server() if request.param == "redis" else servers.rabbitmq()


@pytest.fixture
def queue() -> str:
    return f"q{os.urandom(6).hex()}"


@pytest.fixture
def kept() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def sending(broker: servers.Server, kept: ExitStack) -> Callable[..., Sender]:
    return lambda window=1000: kept.enter_context(closing(sender_to(broker.url, window)()))


@pytest.fixture
def receiving(broker: servers.Server, kept: ExitStack) -> Callable[..., Receiver]:
    def make(*queues: str) -> Receiver:
        made = kept.enter_context(closing(receiver(broker.url)))
        made.follow(frozenset(queues))
        return made

    return make


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()
