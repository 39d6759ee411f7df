"""The dispatcher: the broker holds what waits, up to a window, whatever it lost; little of what nobody takes."""

from collections.abc import Mapping

import pytest
from conformance.moves import accept, end, success, take

from celeriac.keeper.dispatcher import FEW, Dispatcher
from celeriac.keeper.leader import Leader
from celeriac.ledger import Ledger, queues
from celeriac.ledger.queues import waiting

WINDOW = 20


class Level:
    """What a publisher was last told to reach."""

    def __init__(self) -> None:
        self.levels: Mapping[str, int] = {}

    def fill(self, levels: Mapping[str, int], tidy: bool = False) -> None:
        assert tidy
        self.levels = levels


@pytest.fixture
def level() -> Level:
    return Level()


@pytest.fixture
def dispatcher(ledger: Ledger, level: Level) -> Dispatcher:
    return Dispatcher(Leader(ledger, 6), level, WINDOW)


def many(ledger: Ledger, count: int, **changes: object) -> None:
    for _ in range(count):
        accept(ledger, **changes)


def test_each_queue_gets_as_many_hints_as_jobs_wait_up_to_the_window(
    ledger: Ledger, dispatcher: Dispatcher, level: Level
):
    many(ledger, 3)
    many(ledger, WINDOW + 5, queue="big")
    dispatcher.tick()

    assert level.levels == {"default": 3, "big": WINDOW}


def test_what_cannot_be_claimed_gets_none(ledger: Ledger, dispatcher: Dispatcher, level: Level, fake_clock):
    accept(ledger, queue="paused")
    accept(ledger, queue="later", run_at=fake_clock.micros() + 10**9)
    accept(ledger, queue="watched", observed=True)
    accept(ledger, queue="claimed")
    take(ledger, queues=("claimed",))
    ledger.do(queues.pause, "paused")
    dispatcher.tick()

    assert level.levels == {}


def test_where_nothing_was_claimed_only_a_few_are_sent_again(ledger: Ledger, dispatcher: Dispatcher, level: Level):
    many(ledger, WINDOW)
    dispatcher.tick()
    dispatcher.tick()
    assert level.levels == {"default": FEW}

    [job] = take(ledger)
    dispatcher.tick()
    assert level.levels == {"default": WINDOW - 1}

    end(ledger, success(job))
    take(ledger)
    dispatcher.tick()
    assert level.levels == {"default": WINDOW - 2}


def test_no_more_are_counted_than_are_asked_for(ledger: Ledger):
    many(ledger, 7)

    assert waiting(ledger, ["default", "none"], 5) == {"default": 5, "none": 0}
