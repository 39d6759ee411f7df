"""Mail: Celery's small talk waits for whoever bound a queue, in order, and is taken once."""

import threading

from celeriac.ledger import Ledger, mail


def test_a_message_is_taken_once_and_in_order(ledger: Ledger):
    for message in "abc":
        ledger.do(mail.put, (["box"], message))

    assert mail.take(ledger, ["box"]) == [("box", "a"), ("box", "b"), ("box", "c")]
    assert mail.take(ledger, ["box"]) == []


def test_a_message_reaches_every_queue_it_is_for(ledger: Ledger):
    told = []
    ledger.announce = told.append
    ledger.do(mail.put, (["one", "two"], "hello"))

    assert set(told[0].wakes) == {"one", "two"}
    assert mail.take(ledger, ["two"]) == [("two", "hello")]
    assert mail.take(ledger, ["one", "two"]) == [("one", "hello")]


def test_no_more_is_taken_than_asked_for(ledger: Ledger):
    for message in "abc":
        ledger.do(mail.put, (["box"], message))

    assert mail.take(ledger, ["box"], 2) == [("box", "a"), ("box", "b")]
    assert mail.take(ledger, ["box"], 2) == [("box", "c")]


def test_an_empty_box_is_looked_into_without_writing(ledger: Ledger):
    told = []
    ledger.announce = told.append

    assert mail.take(ledger, ["box"]) == []
    assert told == []


def test_bindings_are_remembered_once(ledger: Ledger):
    for _ in range(2):
        mail.bind(ledger, "pidbox", "", "", "one")
    mail.bind(ledger, "pidbox", "key", "#", "two")
    mail.bind(ledger, "other", "", "", "three")

    assert sorted(mail.bindings(ledger, "pidbox")) == [("", "", "one"), ("key", "#", "two")]


def test_a_dropped_queue_is_forgotten_with_its_mail(ledger: Ledger):
    mail.bind(ledger, "pidbox", "", "", "one")
    mail.bind(ledger, "pidbox", "", "", "two")
    ledger.do(mail.put, (["one", "two"], "hello"))

    mail.drop(ledger, "one")

    assert mail.bindings(ledger, "pidbox") == [("", "", "two")]
    assert mail.take(ledger, ["one", "two"]) == [("two", "hello")]


def test_readers_share_nothing(ledger: Ledger):
    for number in range(40):
        ledger.do(mail.put, (["box"], str(number)))
    taken: list[str] = []

    def read() -> None:
        while letters := mail.take(ledger, ["box"], 3):
            taken.extend(message for _, message in letters)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken, key=int) == [str(number) for number in range(40)]
