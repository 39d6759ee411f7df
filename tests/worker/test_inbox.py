"""The inbox between threads: in order, once, and nobody's error is another's."""

import threading

import pytest
from kombu.asynchronous import Hub

from celeriac.worker.inbox import Inbox


@pytest.fixture
def hub():
    made = Hub()
    yield made
    made.close()


def test_what_a_thread_puts_in_is_done_by_the_hub_in_order(hub):
    inbox, done = Inbox(hub), []

    def put() -> None:
        for number in range(5):
            inbox.put(lambda number=number: done.append((number, threading.current_thread())))

    thread = threading.Thread(target=put)
    thread.start()
    thread.join()
    assert done == []
    hub.run_once()
    assert done == [(number, threading.main_thread()) for number in range(5)]


def test_an_error_is_logged_and_the_rest_is_done(hub, caplog):
    inbox, done = Inbox(hub), []
    inbox.put(lambda: 1 / 0)
    inbox.put(lambda: done.append(1))
    inbox.drain()

    assert done == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_closed_inbox_waits_for_no_hub(hub):
    inbox, done = Inbox(hub), []
    inbox.put(lambda: done.append("before"))
    inbox.close()
    inbox.put(lambda: done.append("after"))

    assert done == ["before", "after"]
