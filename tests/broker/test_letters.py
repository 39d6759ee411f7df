"""Letters: a hint, a stranger's task message, or a reason why it is neither."""

import json

import pytest

from celeriac.broker.letters import Hint, Letter, Unreadable, as_text, hint, is_carried, is_hint, meaning

HEADERS = {"task": "add", "id": "a1", "eta": None, "expires": None, "root_id": "r", "parent_id": "p"}
BODY = b"[[1, 2], {}, {}]"


def stranger(body: bytes = BODY, content_type: str = "application/json", properties=None, **headers) -> Letter:
    return Letter("q", body, content_type, HEADERS | headers, properties or {})


def test_a_hint_names_the_job_that_caused_it():
    assert is_hint(hint("a1"))
    assert meaning(Letter("q", hint("a1")), 1000) == Hint("a1")
    assert meaning(Letter("q", hint()), 1000) == Hint(None)


def test_a_task_message_keeps_what_its_sender_said():
    headers, properties, body = meaning(
        stranger(properties={"priority": 7, "correlation_id": "c", "delivery_mode": 2}, eta="2030-01-01T00:00:00"), 1000
    )

    assert headers == HEADERS | {"eta": "2030-01-01T00:00:00"}
    assert properties == {"priority": 7, "correlation_id": "c"}
    assert body == ([1, 2], {}, {})


@pytest.mark.parametrize(("given", "kept"), [(None, 0), (4, 4), (255, 9), (-1, 0), ("high", 0)])
def test_a_priority_is_brought_into_our_range(given: object, kept: int):
    assert meaning(stranger(properties={"priority": given}), 1000).properties["priority"] == kept


def test_what_our_workers_say_of_an_attempt_is_not_taken_from_a_stranger():
    assert "celeriac" not in meaning(stranger(celeriac={"key": 1}), 1000).headers


@pytest.mark.parametrize(
    ("letter", "reason"),
    [
        (stranger(b"\x80\x04pickle", "application/x-python-serialize"), "application/x-python-serialize"),
        (stranger(b"not json"), "not JSON"),
        (stranger(b"[" * 100_000), "not JSON"),
        (stranger(b'{"x": 1}'), "args, kwargs, embed"),
        (stranger(b"[[], {}]"), "args, kwargs, embed"),
        (stranger(b"[{}, [], {}]"), "args, kwargs, embed"),
        (stranger(b"[[], {}, [1]]"), "args, kwargs, embed"),
        (stranger(b"x" * 2_000_000), "2,000,000 bytes"),
        (stranger(compression="application/x-gzip"), "compressed"),
        (stranger(id=None), "'id'"),
        (stranger(id="x" * 256), "'id'"),
        (stranger(id="a\0b"), "'id'"),
        (stranger(task=["add"]), "'task' is missing"),
        (stranger(task="\ud800"), "'task'"),
        (stranger(eta="soon"), "'eta'"),
        (stranger(expires=60), "'expires'"),
        (Letter("q", b'{"task": "add", "id": "a1", "args": []}'), "protocol 1"),
        (Letter("q", b"[1, 2]"), "no Celery task message"),
        (Letter("q", b"\xff\xfe", ""), "of no type"),
        (Letter("q", b'{"celeriac":"hint"'), "begins as a hint"),
    ],
)
def test_what_cannot_become_a_job_is_told_with_its_reason(letter: Letter, reason: str):
    with pytest.raises(Unreadable, match=reason):
        meaning(letter, 1_000_000)


def test_any_letter_can_be_kept_as_text_for_people():
    told = json.loads(as_text(Letter("q", b"\xff\0" * 100_000, "x\0", {"a": b"\0", "at": object()}, {"b": {1, 2}})))

    assert told["bytes"] == 200_000
    assert "\0" not in told["body"]


def test_a_queue_whose_name_amqp_does_not_take_is_not_carried():
    assert is_carried("default")
    assert is_carried("ü" * 127)
    assert not is_carried("ü" * 128)
    assert not is_carried("amq.ours")
