"""A leader to keep for, and a rescuer's view of the workers."""

from dataclasses import replace

import pytest
from conformance.test_nodes import NODE

from celeriac.keeper.leader import Leader
from celeriac.ledger import Ledger, nodes

LEASE = 6.0


@pytest.fixture
def leader(ledger: Ledger, fake_clock) -> Leader:
    """A keeper that leads, in time that stands still."""
    leader = Leader(ledger, LEASE)
    leader.tick()
    assert leader.leads
    return leader


@pytest.fixture
def worker(ledger: Ledger) -> str:
    """A worker node that is alive; return its id."""
    ledger.do(nodes.register, replace(NODE, id="w1@host/1"))
    return "w1@host/1"
