"""Fixtures of the web tests: one server that many tests share, and one for a test that breaks it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import clock
from celeriac.jobs import Worker, new_id
from celeriac.ledger import nodes
from web.house import House, house


@pytest.fixture(scope="session")
def shared(blank_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A web process that tests share; each uses names of its own."""
    with house(blank_sqlite, tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture
def own(blank_sqlite: Path, tmp_path: Path) -> Iterator[House]:
    """A web process for one test alone."""
    with house(blank_sqlite, tmp_path / "home") as made:
        yield made


@pytest.fixture
def worker_of_the_house(shared: House) -> str:
    """A worker node that has registered with the shared server's ledger; its id."""
    id, now = f"w1@host/{new_id()}", clock.micros()
    node = Worker(id, "w1@host", "host", 1, ("default",), ("echo",), 2, "prefork", "0.1.0", now, now, None, None)
    shared.ledger.do(nodes.register, node)
    return id
