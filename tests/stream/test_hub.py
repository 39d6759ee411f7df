"""The hub: nobody who waits misses an end, whether it is announced or not."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from celeriac.access import SYSTEM
from celeriac.broker import News
from celeriac.broker import announcer as announcer_of
from celeriac.jobs import Message, Submission, new_id
from celeriac.ledger import Asked, Ledger, cancel, submit
from celeriac.stream import Hub
from celeriac.stream import hub as module


@pytest.fixture
def hub(ledger: Ledger) -> Hub:
    return Hub(ledger, ledger.url)


@pytest.fixture(autouse=True)
def no_look_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What wakes in a test is what the test does."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600)


def accept(ledger: Ledger) -> str:
    id = new_id()
    ledger.do(submit, Submission(id, "echo", "default", "ann", Message("{}", "{}", "[[], {}, {}]")))
    return id


def end(ledger: Ledger, id: str) -> None:
    ledger.do(cancel, Asked(SYSTEM, id))


def announce(ledger: Ledger, id: str) -> None:
    announcer = announcer_of(ledger.url)
    announcer.announce(News(ends={id: 4}))
    announcer.close()


def run(hub: Hub, story: Callable[[], Awaitable[None]]) -> None:
    async def told() -> None:
        hub.start()
        try:
            await story()
        finally:
            await hub.stop()

    asyncio.run(asyncio.wait_for(told(), 30))


def test_an_announced_end_wakes_everybody_who_waits_for_it_and_nobody_else(hub: Hub, ledger: Ledger):
    async def story() -> None:
        with hub.watching("a") as one, hub.watching("a") as two, hub.watching("b") as other:
            announce(ledger, "a")
            await asyncio.gather(one, two)
            assert not other.done()
        assert hub.waiting == 0

    run(hub, story)


def test_an_end_that_was_never_announced_is_found_by_looking(hub: Hub, ledger: Ledger):
    lost, goes_on = accept(ledger), accept(ledger)

    async def story() -> None:
        with hub.watching(lost) as ended, hub.watching(goes_on) as waits, hub.watching("pruned") as gone:
            end(ledger, lost)
            assert not ended.done()
            await hub.look_once()
            assert (ended.done(), waits.done(), gone.done()) == (True, False, True)

    run(hub, story)


def test_announcements_that_may_have_been_lost_make_it_look_at_once(hub: Hub, ledger: Ledger):
    id = accept(ledger)

    async def story() -> None:
        with hub.watching(id) as ended:
            end(ledger, id)
            hub._listener.poke()  # as a listener does that was cut off for a while
            await ended

    run(hub, story)


def test_an_end_between_registering_and_looking_is_not_missed(hub: Hub, ledger: Ledger):
    id = accept(ledger)

    async def story() -> None:
        with hub.watching(id) as ended:
            announce(ledger, id)
            await ended

    run(hub, story)


def test_ten_thousand_waiters_are_looked_up_together(hub: Hub, ledger: Ledger):
    id = accept(ledger)

    async def story() -> None:
        waits = [hub.watching(id if n % 2 else f"other-{n}") for n in range(10_000)]
        futures = [wait.__enter__() for wait in waits]
        end(ledger, id)
        await hub.look_once()
        assert all(future.done() for future in futures)
        for wait in waits:
            wait.__exit__(None, None, None)
        assert hub.waiting == 0

    run(hub, story)


def test_stopping_wakes_who_waits_and_who_comes_later(hub: Hub):
    async def story() -> None:
        with hub.watching("a") as before:
            hub.wake_all()
            with hub.watching("b") as after:
                await asyncio.gather(before, after)

    run(hub, story)


def test_a_ledger_that_cannot_be_read_is_told_once_and_does_not_end_the_hub(
    hub: Hub, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    id = accept(ledger)

    async def story() -> None:
        with hub.watching(id) as ended:
            rename(ledger, "jobs", "hidden")
            while not caplog.records:
                await asyncio.sleep(0.001)
            assert not ended.done()
            rename(ledger, "hidden", "jobs")
            end(ledger, id)
            await ended

    run(hub, story)
    assert ["could not look" in record.message for record in caplog.records] == [True]


def rename(ledger: Ledger, table: str, name: str) -> None:
    """Hide a table, which is as good as a database that is away, or show it again."""
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {name}")
