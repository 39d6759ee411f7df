"""One running instance (a worker, a keeper, a web process) for all flows: they only look at their own jobs."""

import os

import pytest
from instance import Instance, instance


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> Instance:
    home = tmp_path_factory.mktemp("house")
    with instance(home) as made:
        made.keeper()
        made.web()
        made.worker(concurrency=3)
        yield made


@pytest.fixture
def client(house, monkeypatch):
    """The app as a program beside the instance sees it, for `.delay()` and `AsyncResult`."""
    for name in ("CELERIAC_HOME", "RAN"):
        monkeypatch.setenv(name, house.environment[name])
    import jobs_for_tests

    jobs_for_tests.app.__dict__.pop("settings", None)
    yield jobs_for_tests
    jobs_for_tests.app.__dict__.pop("settings", None)
    os.environ.pop("RAN", None)
