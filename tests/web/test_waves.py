"""Waves: requests that come together share a commit, and a lone one does not wait."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from celeriac.errors import LedgerBusy, LedgerUnavailable, LedgerUncertain
from celeriac.web import waves as module
from celeriac.web.waves import Waves


class Commits:
    """Stands where the group stands: keeps what is handed over until `commit`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], None]] = []
        self.sizes: list[int] = []

    def add(self, move: Any, item: Any, callback: Callable[[Any], None]) -> None:
        self.waiting.append(callback)

    def withdraw(self, callbacks: Collection[Callable[[Any], None]]) -> list[Callable[[Any], None]]:
        found = [callback for callback in self.waiting if callback in callbacks]
        self.waiting = [callback for callback in self.waiting if callback not in callbacks]
        return found

    def begin(self) -> list[Callable[[Any], None]]:
        """Take what was handed over, as a commit that is not answered."""
        taken, self.waiting = self.waiting, []
        return taken

    def commit(self, answer: Any = "kept") -> None:
        self.sizes.append(len(self.waiting))
        taken, self.waiting = self.waiting, []
        for callback in taken:
            callback(answer)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_lone_request_goes_at_once():
    async def run() -> None:
        group = Commits()
        waves = Waves(group)  # type: ignore[arg-type]
        for _ in range(3):
            future = waves.add(len, 1)  # type: ignore[arg-type]
            await turns()
            assert len(group.waiting) == 1
            group.commit()
            assert await future == "kept"

    asyncio.run(run())


def test_requests_of_one_turn_share_a_commit_and_so_do_those_that_come_meanwhile():
    async def run() -> None:
        group = Commits()
        waves = Waves(group)  # type: ignore[arg-type]
        first = [waves.add(len, n) for n in range(3)]  # type: ignore[arg-type]
        await turns()
        later = [waves.add(len, n) for n in range(5)]  # type: ignore[arg-type]
        await turns()
        group.commit()
        await asyncio.gather(*first)
        while not group.waiting:
            await asyncio.sleep(0.001)
        group.commit()
        await asyncio.gather(*later)
        assert group.sizes == [3, 5]

    asyncio.run(run())


def test_an_error_reaches_who_asked():
    async def run() -> None:
        group = Commits()
        future = Waves(group).add(len, 1)  # type: ignore[arg-type]
        await turns()
        group.commit(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await future

    asyncio.run(run())


def test_a_caller_who_gave_up_hinders_nobody():
    async def run() -> None:
        group = Commits()
        waves = Waves(group)  # type: ignore[arg-type]
        gone, stays = waves.add(len, 1), waves.add(len, 2)  # type: ignore[arg-type]
        await turns()
        gone.cancel()
        group.commit()
        assert await stays == "kept"

    asyncio.run(run())


def test_a_group_that_takes_no_more_is_told_to_everybody():
    class Stopped(Commits):
        def add(self, move: Any, item: Any, callback: Callable[[Any], None]) -> None:
            raise LedgerUnavailable("stopping")

    async def run() -> None:
        waves = Waves(Stopped())  # type: ignore[arg-type]
        answers = await asyncio.gather(*(waves.add(len, n) for n in range(3)), return_exceptions=True)  # type: ignore[arg-type]
        assert [str(answer) for answer in answers] == ["stopping"] * 3

    asyncio.run(run())


def test_no_request_is_forgotten_however_they_come():
    async def run() -> None:
        group = Commits()
        waves = Waves(group)  # type: ignore[arg-type]
        futures = []
        for count in (1, 30, 2, 0, 100, 1, 1, 25, 0, 7):
            futures += [waves.add(len, n) for n in range(count)]  # type: ignore[arg-type]
            await turns(count % 3)
            group.commit()
        while not all(future.done() for future in futures):
            group.commit()
            await asyncio.sleep(0.001)
        assert sum(group.sizes) == 167

    asyncio.run(run())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)


def test_everybody_is_answered_though_the_ledger_never_does(impatient: None):
    async def run() -> None:
        group = Commits()
        waves = Waves(group)  # type: ignore[arg-type]
        begun = waves.add(len, 1)  # type: ignore[arg-type]
        await turns()
        [late] = group.begin()
        waiting = [waves.add(len, n) for n in range(30)]  # type: ignore[arg-type]

        answers = await asyncio.wait_for(asyncio.gather(begun, *waiting, return_exceptions=True), 10)
        assert [type(answer) for answer in answers] == [LedgerUncertain, *[LedgerBusy] * 30]
        assert group.waiting == []  # "nothing was accepted" is true
        late("kept")  # the ledger comes back
        again = waves.add(len, 1)  # type: ignore[arg-type]
        await turns()
        group.commit()
        assert await again == "kept"

    asyncio.run(run())


def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "WAITING_MOST", 3)

    async def run() -> None:
        group = Commits()
        waves = Waves(group)  # type: ignore[arg-type]
        futures = [waves.add(len, n) for n in range(3)]  # type: ignore[arg-type]
        with pytest.raises(LedgerBusy, match="3 requests wait"):
            waves.add(len, 4)  # type: ignore[arg-type]
        await turns()
        group.commit()
        assert await asyncio.gather(*futures) == ["kept"] * 3
        waves.add(len, 5).cancel()  # type: ignore[arg-type]

    asyncio.run(run())
