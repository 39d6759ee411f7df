"""Pause and resume: a paused queue takes jobs and gives none."""

import pytest

from celeriac.errors import QueueNotFound
from celeriac.ledger import Ledger, queues, read
from conformance.moves import accept, begin, end, select, success, take, take_one


def test_nothing_is_claimed_from_a_paused_queue(ledger: Ledger):
    accept(ledger, queue="small")
    other = accept(ledger, queue="big")
    ledger.do(queues.pause, "small")
    later = accept(ledger, queue="small")

    assert [job.id for job in take(ledger, 10, queues=("small", "big"))] == [other]
    assert not read.any_queued(ledger, ["small"])
    assert queues.queue(ledger, "small").counts == {"queued": 2}
    assert later


def test_what_runs_when_its_queue_is_paused_comes_to_its_end(ledger: Ledger):
    accept(ledger)
    job = take_one(ledger)
    ledger.do(queues.pause, "default")

    assert begin(ledger, job)
    assert end(ledger, success(job)) == [True]


def test_a_resumed_queue_wakes_its_workers_and_is_claimed_from(ledger: Ledger):
    id = accept(ledger)
    ledger.do(queues.pause, "default")
    told = []
    ledger.announce = told.append

    ledger.do(queues.resume, "default")

    assert set(told[0].wakes) == {"default"}
    assert read.any_queued(ledger, ["default"])
    assert take_one(ledger).id == id


def test_a_second_pause_keeps_the_time_of_the_first(ledger: Ledger, fake_clock):
    ledger.do(queues.pause, "default")
    first = queues.queue(ledger, "default").paused_at
    fake_clock.advance(5)

    ledger.do(queues.pause, "default")

    assert queues.queue(ledger, "default").paused_at == first


def test_resuming_what_is_not_paused_changes_nothing(ledger: Ledger):
    told = []
    ledger.announce = told.append

    ledger.do(queues.resume, "default")

    assert [set(tx.wakes) for tx in told] == [set()]
    assert select(ledger, "SELECT * FROM queues") == []


def test_many_pauses_in_one_batch_answer_each(ledger: Ledger):
    with ledger.transaction() as tx:
        assert queues.pause(tx, ["a", "b", "a"]) == [None] * 3
        assert queues.resume(tx, ["b", "b"]) == [None] * 2

    assert [queue.name for queue in read.all_queues(ledger)] == ["a"]


@pytest.mark.parametrize("name", ["small", "a/b", "Ünï", "x' OR '1'='1", "x" * 200])
def test_a_queue_nobody_has_used_can_be_paused_whatever_its_name(ledger: Ledger, name: str):
    with pytest.raises(QueueNotFound):
        queues.queue(ledger, name)
    ledger.do(queues.pause, name)
    accept(ledger, queue=name)

    assert queues.queue(ledger, name).paused_at is not None
    assert take(ledger, queues=(name,)) == []
