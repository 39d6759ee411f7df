"""The publisher: in nobody's way, never more than a window, and the ledger's own way while the broker is away."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

import pytest
import servers

from celeriac.broker import Publisher, sender_to
from celeriac.broker.letters import Hint, Letter, meaning

Wait = Callable[..., None]


class Shelf:
    """A broker in memory: what lies in each queue, and ways to be away."""

    def __init__(self) -> None:
        self.queues: dict[str, list[str | None]] = {}
        self.sent = 0
        self.tidied = threading.Event()
        self.away = False
        self.open = threading.Event()  # while it is not set, the broker stands still
        self.open.set()

    def connect(self) -> "Shelf":
        self._answer()
        return self

    def send(self, hints: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        self._answer()
        for queue, bodies in hints.items():
            said = [meaning(Letter(queue, body), 1000) for body in bodies]
            self.queues.setdefault(queue, []).extend(hint.job for hint in said if isinstance(hint, Hint))
            self.sent += len(bodies)
        return {queue: len(self.queues[queue]) for queue in hints}

    def fill(self, levels: Mapping[str, int]) -> dict[str, int]:
        self._answer()
        for queue, level in levels.items():
            jobs = self.queues.setdefault(queue, [])
            jobs.extend([None] * (level - len(jobs)))
        return {queue: len(self.queues[queue]) for queue in levels}

    def tidy(self) -> None:
        self.tidied.set()

    def close(self) -> None:
        """Nothing."""

    def _answer(self) -> None:
        self.open.wait(30)
        if self.away:
            raise ConnectionRefusedError("the shelf\nis away")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def told() -> list[str]:
    """The queues that were told of in the ledger's own way."""
    return []


@pytest.fixture
def publisher(shelf: Shelf, told: list[str]) -> Iterator[Publisher]:
    with closing(Publisher(lambda: shelf.connect, 5, told.extend)) as made:
        yield made
        shelf.open.set()


def test_each_job_is_hinted_at_in_its_queue(publisher: Publisher, shelf: Shelf, wait_until: Wait):
    assert set(publisher.tell({"a": ["1", "2"], "b": ["3"]})) == {"a", "b"}

    wait_until(lambda: publisher.sent == 3, "the hints")
    assert shelf.queues == {"a": ["1", "2"], "b": ["3"]}
    assert (publisher.up, publisher.depths) == (True, {"a": 2, "b": 1})


def test_what_cannot_be_sent_goes_the_ledgers_own_way(
    publisher: Publisher, shelf: Shelf, told: list[str], wait_until: Wait
):
    shelf.away = True
    assert publisher.tell({"a": ["1"]})

    wait_until(lambda: told == ["a"], "the other way")
    assert publisher.down
    assert not publisher.tell({"a": ["2"]})


def test_what_a_broken_connection_swallowed_goes_the_ledgers_own_way(
    publisher: Publisher, shelf: Shelf, told: list[str], wait_until: Wait
):
    publisher.tell({"a": ["1"]})
    wait_until(lambda: publisher.sent == 1, "the first hint")
    shelf.away = True
    publisher.tell({"a": ["2"], "b": ["3"]})

    wait_until(lambda: sorted(told) == ["a", "b"], "the other way")


def test_it_sends_again_when_the_broker_is_back(publisher: Publisher, shelf: Shelf, wait_until: Wait):
    shelf.away = True
    publisher.fill({})
    wait_until(lambda: publisher.down, "the outage")
    shelf.away = False
    wait_until(lambda: publisher.up, "the return")

    publisher.tell({"a": ["1"]})
    wait_until(lambda: shelf.queues == {"a": ["1"]}, "the hint")


def test_a_broker_that_stands_still_keeps_nobody_waiting(publisher: Publisher, shelf: Shelf, wait_until: Wait):
    publisher.fill({})
    wait_until(lambda: publisher.up, "the connection")
    shelf.open.clear()
    publisher.tell({"a": ["1"]})

    wait_until(lambda: publisher.down, "that it is noticed")
    assert not publisher.tell({"a": ["2"]})


def test_no_more_than_a_window_is_kept_for_each_queue(publisher: Publisher, shelf: Shelf, wait_until: Wait):
    shelf.open.clear()
    for number in range(100):
        publisher.tell({"a": [str(number)]})
    shelf.open.set()

    wait_until(lambda: publisher.sent > 0, "the hints")
    assert len(shelf.queues["a"]) <= 6


def test_a_full_queue_is_left_alone(publisher: Publisher, shelf: Shelf, wait_until: Wait):
    publisher.fill({"a": 5})
    wait_until(lambda: publisher.depths == {"a": 5}, "the level")

    assert publisher.tell({"a": ["1"], "b": ["2"]})
    wait_until(lambda: "b" in shelf.queues, "the other queue")
    assert shelf.queues["a"] == [None] * 5


def test_a_level_is_reached_and_what_the_dead_held_put_back(publisher: Publisher, shelf: Shelf, wait_until: Wait):
    publisher.fill({"a": 2}, tidy=True)
    wait_until(shelf.tidied.is_set, "the tidying")
    shelf.tidied.clear()
    publisher.fill({}, tidy=True)
    wait_until(shelf.tidied.is_set, "the tidying, with no work anywhere")

    assert shelf.queues == {"a": [None, None]}


def test_a_queue_that_a_broker_cannot_have_goes_the_ledgers_own_way(publisher: Publisher):
    assert set(publisher.tell({"amq.mine": ["1"], "ü" * 200: ["2"], "a": ["3"]})) == {"a"}


def test_its_last_hints_are_sent_before_it_closes(publisher: Publisher, shelf: Shelf):
    publisher.tell({"a": ["1"]})
    publisher.close()

    assert shelf.queues == {"a": ["1"]}
    assert not publisher.tell({"a": ["2"]})


@pytest.mark.redis
def test_a_short_program_has_told_of_its_job_when_it_ends(tmp_path, queue: str):
    server = servers.redis_server()
    code = (
        "from jobs_for_tests import add; from celeriac.ledger import migrations;"
        f"migrations.upgrade(add.app.ledger); add.apply_async((1, 2), queue='{queue}')"
    )
    environment = {
        **os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__)), "CELERIAC_HOME": str(tmp_path),
        "CELERIAC_BROKER_URL": server.url,
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)

    with closing(sender_to(server.url, 10)()) as found:
        assert found.fill({queue: 0}) == {queue: 1}
