"""What attempts report on its way to the ledger, also while that is away: bounded, in order, the last word kept."""

from typing import Any

import pytest

from celeriac.jobs import Kind, Note, Start
from celeriac.worker.history import History


class Group:
    """Keeps what it is handed, as a ledger that is away, until `commit`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, Any]] = []
        self.written: list[Any] = []

    def add(self, move: Any, item: Any, callback: Any, urgent: bool = True) -> None:
        self.waiting.append((item, callback))

    def commit(self) -> None:
        taken, self.waiting = self.waiting, []
        for item, callback in taken:
            self.written.append(item)
            callback(True)


class Inbox:
    """Timers that `fire` when told."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def later(self, seconds: float, action: Any) -> None:
        self.timers.append(action)

    def fire(self) -> None:
        taken, self.timers = self.timers, []
        for action in taken:
            action()


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def history(group: Group, inbox: Inbox) -> History:
    return History(group, inbox)  # type: ignore[arg-type]


def reach(history: History, value: float) -> None:
    history.report((1, 1, 0, Kind.PROGRESS, {"value": value, "total": None, "note": None}))


def values(items: list[Note]) -> list[object]:
    return [item.data["value"] for item in items]


def test_progress_of_an_hour_without_a_ledger_is_one_line_and_the_latest(history, group, inbox, fake_clock):
    for second in range(3600):
        reach(history, second)
        fake_clock.advance(1)
        inbox.fire()

    assert len(group.waiting) == 1
    group.commit()
    group.commit()
    assert values(group.written) == [0, 3599]


def test_progress_is_written_once_a_second(history, group, inbox, fake_clock):
    for step in range(30):
        reach(history, step)
        group.commit()
        fake_clock.advance(0.1)
        if step % 10 == 9:
            inbox.fire()

    group.commit()
    assert values(group.written) == [0, 9, 19, 29]


def test_the_last_word_before_the_end_is_kept_though_another_is_under_way(history, group, fake_clock):
    reach(history, 1)
    reach(history, 2)
    history.close(1)

    group.commit()
    assert values(group.written) == [1, 2]


def test_a_start_that_its_outcome_follows_soon_costs_no_write_of_its_own(history, group, inbox):
    for key in range(1, 6):
        history.started(Start(key, 1, key))
        if key % 2:
            inbox.fire()  # a look may come at any moment between a start and its outcome
        history.close(key)

    inbox.fire()
    assert group.waiting == []


def test_a_start_without_an_outcome_is_written_at_the_second_look(history, group, inbox):
    history.started(Start(1, 1, 7))
    inbox.fire()
    history.started(Start(2, 1, 8))
    assert group.waiting == []
    inbox.fire()
    assert [item.key for item, _ in group.waiting] == [1]
    inbox.fire()
    assert [item.key for item, _ in group.waiting] == [1, 2]
    assert inbox.timers == []


def test_a_job_starts_before_it_speaks_however_long_ago_it_began(history, group, inbox):
    history.started(Start(1, 1, 7))
    inbox.fire()
    history.report((1, 1, 8, Kind.LOG, {"text": "here"}))

    assert [type(item) for item, _ in group.waiting] == [Start, Note]
