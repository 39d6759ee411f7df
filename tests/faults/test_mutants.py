"""Promises broken on purpose, each beside the same fault with the promise kept: the oracle sees the one, not the other.

More of them are in test_kills.py; the variants themselves in mutants.py.
"""

import itertools

import pytest
import redis
import servers
from celery import Celery
from instance import Instance, instance, program, until
from oracle import violations

from celeriac.states import State

_numbers = itertools.count()


@pytest.fixture
def house(tmp_path, nursery):
    with instance(tmp_path / "home", app="jobs_for_faults:app", nursery=nursery) as made:
        yield made


@pytest.mark.parametrize("mutant", ["", "links_in_a_commit_of_their_own"])
def test_the_oracle_notices_an_end_that_commits_without_its_chain_link(house: Instance, mutant, monkeypatch):
    import jobs_for_tests

    house.keeper()
    with program(house, jobs_for_tests.app, monkeypatch):
        result = jobs_for_tests.a_chain().apply_async()
    house.worker("victim", **({"MUTANT": mutant} if mutant else {}))
    until(lambda: house.job(result.parent.parent.id).state is State.SUCCEEDED, "the first link to end")
    house.kill("victim")
    house.worker("other")
    house.all_ended()
    house.stop()

    gone = f"I1: {result.id} was acknowledged and is gone"
    assert (gone in violations(house.ledger, [result.id])) == bool(mutant)


@pytest.mark.parametrize("mutant", ["", "counts_apart_from_rows"])
def test_the_oracle_notices_counts_that_do_not_move_with_their_rows(house: Instance, mutant):
    ids = house.submit("add", count=3, x=1, y=1)
    house.worker("one", **({"MUTANT": mutant} if mutant else {}))
    house.ended(ids)
    house.stop()

    assert any(told.startswith("I8") for told in violations(house.ledger, ids)) == bool(mutant)


@pytest.mark.redis
@pytest.mark.parametrize("mutant", ["", "acknowledged_before_the_adoption"])
def test_the_oracle_notices_a_message_acknowledged_before_its_adoption_is_committed(tmp_path, nursery, mutant):
    servers.needs("redis-server")
    url = servers.redis_server().url.replace("/0", f"/{next(_numbers) + 1}")
    with instance(tmp_path / "home", app="jobs_for_faults:app", nursery=nursery, CELERIAC_BROKER_URL=url) as house:
        with Celery(broker=url) as stranger:
            id = stranger.send_task("add", (1, 2), queue="default", ignore_result=True).id
        house.worker("victim", **({"MUTANT": mutant} if mutant else {}))
        until(lambda: not _left(url), "the message to be acknowledged")
        house.kill("victim")

        gone = f"I1: {id} was acknowledged and is gone"
        assert (gone in violations(house.ledger, [id], ended=False)) == bool(mutant)


# One look at all lists: a message moves from one to another.
_LOOK = """
local left = 0
for _, key in ipairs(redis.call('KEYS', '*')) do
    if redis.call('TYPE', key).ok == 'list' then left = left + redis.call('LLEN', key) end
end
return left
"""


def _left(url: str) -> int:
    """Return how many messages lie in the lists of a Redis database."""
    with redis.Redis.from_url(url) as client:
        return client.eval(_LOOK, 0)
