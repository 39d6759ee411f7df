"""The state of an instance at a glance: counts, queues, workers, and how many jobs ended in which minute."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM, Principal
from celeriac.errors import Forbidden
from celeriac.ledger import Ledger, counts, nodes
from celeriac.ledger.counts import MINUTE
from celeriac.ledger.stats import stats
from celeriac.states import State
from conformance.moves import BOOM, accept, end, failure, running, submission, submit_all, success, take
from conformance.test_nodes import NODE
from conformance.test_pruning import prune_jobs


def fold(ledger: Ledger) -> None:
    with ledger.transaction() as tx:
        counts.fold_counts(tx)


@pytest.fixture
def minute(fake_clock) -> int:
    """The beginning of the minute that it is now."""
    fake_clock.advance(60 - clock.micros() % MINUTE / 1_000_000)
    return clock.micros() // MINUTE * MINUTE


def test_stats_tell_what_waits_runs_and_works(ledger: Ledger):
    submit_all(ledger, submission(), submission(queue="big"), submission(failure=BOOM))
    take(ledger)
    ledger.do(nodes.register, replace(NODE, concurrency=4))
    ledger.do(nodes.register, replace(NODE, id="gone", concurrency=8))
    ledger.do(nodes.stop, "gone")

    told = stats(ledger, SYSTEM)

    assert told.counts == dict.fromkeys(State, 0) | {"queued": 1, "running": 1, "failed": 1}
    assert [(queue.name, queue.oldest_queued_at is None) for queue in told.queues] == [
        ("big", False),
        ("default", True),
    ]
    assert (told.workers_online, told.slots, told.running) == (1, 4, 1)


def test_endings_are_added_up_by_minute_and_state(ledger: Ledger, fake_clock, minute: int):
    end(ledger, success(running(ledger)), failure(running(ledger, queue="other")))
    fold(ledger)
    end(ledger, success(running(ledger)))
    fold(ledger)
    fake_clock.advance(60)
    end(ledger, success(running(ledger)))
    fold(ledger)

    told = stats(ledger, SYSTEM, 2)

    assert told.endings == [(minute, "failed", 1), (minute, "succeeded", 2), (minute + MINUTE, "succeeded", 1)]
    assert stats(ledger, SYSTEM, 1).endings == told.endings[2:]


def test_what_is_pruned_ended_all_the_same(ledger: Ledger, fake_clock, minute: int):
    accept(ledger, failure=BOOM)
    fold(ledger)
    fake_clock.advance(1)
    prune_jobs(ledger, clock.micros())
    fold(ledger)

    assert stats(ledger, SYSTEM).endings == [(minute, "failed", 1)]
    assert stats(ledger, SYSTEM).counts["failed"] == 0


def test_the_rate_is_that_of_the_last_five_full_minutes(ledger: Ledger, fake_clock, minute: int):
    for passed, jobs in ((0, 900), (60, 30), (240, 60), (60, 600)):
        fake_clock.advance(passed)
        submit_all(ledger, *(submission(failure=BOOM) for _ in range(jobs)))
        submit_all(ledger, submission(failure=BOOM, ends_as=State.CANCELLED))
        fold(ledger)

    assert stats(ledger, SYSTEM, minutes=1).rate_per_second == (30 + 60) / 300


def test_stats_are_for_who_may_read_the_system(ledger: Ledger):
    with pytest.raises(Forbidden):
        stats(ledger, Principal("ann", frozenset()))
