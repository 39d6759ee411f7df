"""Who is alive: workers with their counters, and one leader whose term fences its predecessors."""

from dataclasses import replace

import pytest

from celeriac.jobs import Worker
from celeriac.ledger import Ledger, nodes, read
from conformance.moves import accept, take

NODE = Worker(
    id="w1@host/1", name="w1", host="host", pid=7, queues=("default", "big"), tasks=("add",), concurrency=4,
    pool="prefork", version="5.7", started_at=0, beat_at=0, stopped_at=None, lost_at=None,
)  # fmt: skip


def beats(ledger: Ledger) -> dict[str, int]:
    with ledger.reading() as connection:
        return nodes.beats(connection)


def lose(ledger: Ledger, *workers: str) -> list[str]:
    with ledger.transaction() as tx:
        return nodes.lose(tx, workers)


def campaign(ledger: Ledger, holder: str, dead: nodes.Lead | None = None) -> int | None:
    with ledger.transaction() as tx:
        return nodes.campaign(tx, "keeper", holder, dead)


def renew(ledger: Ledger, holder: str, term: int) -> bool:
    with ledger.transaction() as tx:
        return nodes.renew(tx, "keeper", holder, term)


def test_a_worker_that_registers_is_known_with_what_it_does(ledger: Ledger):
    ledger.do(nodes.register, NODE)
    accept(ledger)
    take(ledger)

    [worker] = read.all_workers(ledger)
    assert worker == replace(NODE, started_at=worker.started_at, beat_at=worker.beat_at, running=1)
    assert worker.online
    assert {queue.name for queue in read.all_queues(ledger)} == {"default", "big"}


def test_a_worker_that_lives_is_listed_however_many_have_stopped_since(ledger: Ledger, fake_clock):
    ledger.do(nodes.register, NODE)
    fake_clock.advance(1)
    gone = [replace(NODE, id=f"w2@host/{n}", name="w2") for n in range(500)]
    with ledger.transaction() as tx:
        nodes.register(tx, gone)
        nodes.stop(tx, [worker.id for worker in gone])

    workers = read.all_workers(ledger)
    assert (workers[0].id, len(workers)) == (NODE.id, 500)
    assert {queue.name for queue in read.all_queues(ledger)} == {"default", "big"}


def test_each_beat_raises_the_counter(ledger: Ledger):
    ledger.do(nodes.register, NODE)

    seen = [beats(ledger)[NODE.id]]
    for _ in range(3):
        assert ledger.do(nodes.beat, NODE.id) is True
        seen.append(beats(ledger)[NODE.id])

    assert seen == [1, 2, 3, 4]


def test_a_worker_that_was_given_up_is_told_so_and_stays_given_up(ledger: Ledger):
    ledger.do(nodes.register, NODE)

    assert lose(ledger, NODE.id) == ["w1"]

    assert ledger.do(nodes.beat, NODE.id) is False
    assert lose(ledger, NODE.id) == []
    assert beats(ledger) == {}
    assert not read.all_workers(ledger)[0].online


def test_a_worker_that_stopped_is_not_lost(ledger: Ledger):
    ledger.do(nodes.register, NODE)
    ledger.do(nodes.stop, NODE.id)

    assert lose(ledger, NODE.id) == []
    assert ledger.do(nodes.beat, NODE.id) is False
    [worker] = read.all_workers(ledger)
    assert (worker.online, worker.lost_at) == (False, None)


def test_an_unknown_worker_cannot_beat(ledger: Ledger):
    assert ledger.do(nodes.beat, "nobody") is False


def test_the_living_stand_first(ledger: Ledger):
    for name in ("a", "b", "c"):
        ledger.do(nodes.register, replace(NODE, id=name, name=name))
    lose(ledger, "a")

    assert [worker.name for worker in read.all_workers(ledger)] == ["b", "c", "a"]


def test_the_first_to_campaign_leads(ledger: Ledger):
    assert nodes.leader(ledger, "keeper") is None

    assert campaign(ledger, "one") == 1

    assert campaign(ledger, "two") is None
    assert nodes.leader(ledger, "keeper") == nodes.Lead("one", 1, 1, False)


def test_a_leader_that_moved_since_it_was_looked_at_stays(ledger: Ledger):
    campaign(ledger, "one")
    seen = nodes.leader(ledger, "keeper")
    assert renew(ledger, "one", 1)

    assert campaign(ledger, "two", dead=seen) is None
    assert renew(ledger, "one", 1)


def test_a_new_term_fences_off_the_old_leader(ledger: Ledger):
    campaign(ledger, "one")

    assert campaign(ledger, "two", dead=nodes.leader(ledger, "keeper")) == 2

    assert not renew(ledger, "one", 1)
    assert renew(ledger, "two", 2)


def test_a_term_is_never_used_twice(ledger: Ledger):
    terms = [campaign(ledger, "one")]
    for holder in ("two", "one", "one"):
        terms.append(campaign(ledger, holder, dead=nodes.leader(ledger, "keeper")))

    assert terms == [1, 2, 3, 4]
    assert not renew(ledger, "one", 3)


def test_a_lead_that_was_released_is_free_at_once(ledger: Ledger):
    campaign(ledger, "one")
    with ledger.transaction() as tx:
        nodes.release(tx, "keeper", "one", 1)

    assert not renew(ledger, "one", 1)
    assert campaign(ledger, "two") == 2


def test_nobody_releases_anothers_lead(ledger: Ledger):
    campaign(ledger, "one")
    with ledger.transaction() as tx:
        nodes.release(tx, "keeper", "two", 1)
        nodes.release(tx, "keeper", "one", 2)

    assert renew(ledger, "one", 1)


@pytest.mark.parametrize("name", ["keeper", "other"])
def test_leads_of_different_names_do_not_meet(ledger: Ledger, name: str):
    with ledger.transaction() as tx:
        assert nodes.campaign(tx, name, "one", None) == 1
        assert nodes.campaign(tx, f"{name}-2", "two", None) == 1
