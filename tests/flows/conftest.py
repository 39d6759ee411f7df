"""One running instance (a worker, a keeper) for all flows of a file, on each of the four set-ups in turn.

Flows only look at their own jobs. All of them run on every set-up: a broker changes who is told of work and when, and
that may go wrong in any of them. That is cheap, as long as the instance is shared: starting it is most of the cost.
"""

from collections.abc import Callable, Iterator

import pytest
from instance import Instance, on, program
from nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes are born quickly."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="module", params=on())
def house(request: pytest.FixtureRequest, instance_on: Callable, nursery: Nursery) -> Iterator[Instance]:
    with instance_on(request.param, nursery=nursery) as made:
        made.keeper()
        made.worker(concurrency=3)
        yield made


@pytest.fixture
def client(house, monkeypatch):
    import jobs_for_tests

    with program(house, jobs_for_tests.app, monkeypatch):
        yield jobs_for_tests
