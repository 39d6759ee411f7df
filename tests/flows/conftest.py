"""One running instance (a worker, a keeper, a web process) for all flows: they only look at their own jobs."""

import os
from collections.abc import Iterator

import postgres
import pytest
from databases import DATABASES
from instance import Instance, instance, program
from nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes are born quickly."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session", params=DATABASES)
def house(request, tmp_path_factory) -> Instance:
    home = tmp_path_factory.mktemp("house")
    url = ""
    if request.param == "postgres":
        request.getfixturevalue("blank_postgres")
        url = postgres.server().create(f"house_{os.urandom(4).hex()}")
    with instance(home, database_url=url) as made:
        made.keeper()
        made.web()
        made.worker(concurrency=3)
        yield made


@pytest.fixture
def client(house, monkeypatch):
    import jobs_for_tests

    with program(house, jobs_for_tests.app, monkeypatch):
        yield jobs_for_tests
