"""Real workers for the tests of this folder, born quickly."""

from collections.abc import Iterator

import pytest
from nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes are born quickly."""
    made = Nursery()
    yield made
    made.close()
