"""The pytest fixtures, found by pytest itself through the entry point `celeriac`.

Loads nothing heavy until a test asks for a fixture. The app is named in pytest's configuration
(`celeriac_app = "shop:app"`), by CELERIAC_APP, or by a fixture `celeriac_app` of one's own.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.client import Client
    from celeriac.testing.jobs import Jobs


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the configuration name the app."""
    parser.addini("celeriac_app", "The Celeriac app under test, as module:attribute.", default="")


def _name(config: pytest.Config) -> str:
    name = str(config.getini("celeriac_app")) or os.environ.get("CELERIAC_APP", "")
    if not name:
        pytest.fail(
            'No app is named. Put celeriac_app = "module:app" into the configuration of pytest, '
            "or write a fixture celeriac_app that returns the app.",
            pytrace=False,
        )
    return name


@pytest.fixture(scope="session")
def celeriac_app(pytestconfig: pytest.Config) -> "Celeriac":
    """The app under test."""
    from celeriac.app import load_app

    return load_app(_name(pytestconfig))


@pytest.fixture
def celeriac_jobs(celeriac_app: "Celeriac") -> "Iterator[Jobs]":
    """Jobs run inline, on an empty ledger, for the length of a test."""
    from celeriac.testing.jobs import inline

    with inline(celeriac_app) as jobs:
        yield jobs


@pytest.fixture(scope="session")
def celeriac_instance(pytestconfig: pytest.Config) -> "Iterator[Client]":
    """A client of a real instance, started once for all tests that ask for it."""
    from celeriac.testing.server import instance

    with instance(_name(pytestconfig)) as client:
        yield client
