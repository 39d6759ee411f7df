"""Coroutine functions as tasks: run to their end, closed when they are cut off, beside a loop that runs already."""

import asyncio
import inspect
import signal

import pytest

from celeriac import current
from celeriac.app.coroutines import awaited


class Cancelled:
    """A plug of a job that somebody asked to cancel."""

    def report(self, kind, data):
        pass

    def cancelled(self):
        return True


def test_a_coroutine_function_keeps_its_signature():
    async def add(x: int, y: int = 2) -> int:
        return x + y

    assert list(inspect.signature(awaited(add)).parameters) == ["x", "y"]
    assert awaited(add)(1) == 3


def test_a_plain_function_stays_as_it_is():
    assert awaited(len) is len


def test_a_thread_keeps_its_loop_from_one_run_to_the_next():
    async def loop() -> int:
        return id(asyncio.get_running_loop())

    assert awaited(loop)() == awaited(loop)()


def test_an_error_of_a_coroutine_is_the_tasks():
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        awaited(fail)()


def test_a_coroutine_that_a_signal_cuts_off_may_clean_up():
    closed = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    def cut(*_: object) -> None:
        raise current.JobCancelled

    before = signal.signal(signal.SIGALRM, cut)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(current.JobCancelled):
            awaited(endless)()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert closed


def test_a_cancelled_job_ends_its_coroutine_where_it_awaits():
    closed = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    unplug = current.plug(Cancelled())
    try:
        with pytest.raises(current.JobCancelled):
            awaited(endless)()
    finally:
        unplug()
    assert closed


def test_a_coroutine_sees_the_context_of_its_own_attempt():
    async def cancelled() -> bool:
        return current.cancelled()

    assert awaited(cancelled)() is False
    unplug = current.plug(Cancelled())
    try:
        assert awaited(cancelled)() is True
    finally:
        unplug()


def test_a_coroutine_runs_beside_a_loop_that_runs_already():
    async def inner() -> str:
        await asyncio.sleep(0)
        return "beside"

    async def outer() -> str:
        return awaited(inner)()

    assert asyncio.run(outer()) == "beside"
