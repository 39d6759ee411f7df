"""Redaction: what goes under a hiding name is never shown, however it is spelled or nested."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.app.redaction import REDACTED, Redaction
from celeriac.settings import SECRETS

redaction = Redaction([*SECRETS, "card"])


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "user_password", "passwd", "client-secret", "clientSecret", "token", "access_token",
        "api_key", "apiKey", "X-API-Key", "apikey", "Authorization", "credentials", "private_key", "privateKey", "card",
    ],
)  # fmt: skip
def test_a_name_hides_whatever_its_spelling(name: str):
    assert redaction.hides(name)
    assert json.loads(redaction.raw(json.dumps({name: "x"}).encode())) == {name: REDACTED}


@pytest.mark.parametrize("name", ["value", "author", "cards", "key", "pass", "note"])
def test_other_names_hide_nothing(name: str):
    assert redaction.raw(b'{"%s":1.50}' % name.encode()) == b'{"%s":1.50}' % name.encode()


def test_what_is_hidden_is_so_at_any_depth_and_the_rest_stays_byte_for_byte():
    text = b'{"a": [1.50, {"token": [1, 2], "b": 1E2}], "password": {"x": 1}}'

    assert redaction.raw(text) == b'{"a":[1.50,{"token":"[redacted]","b":1E2}],"password":"[redacted]"}'


def test_a_name_that_is_spelled_with_escapes_is_found():
    assert redaction.raw(b'{"p\\u0061ssword": 1}') == b'{"password":"[redacted]"}'


def test_what_is_too_deep_to_look_through_is_hidden_whole():
    deep: Any = {"token": "x"}
    for _ in range(500):
        deep = [deep]

    assert b'"x"' not in redaction.raw(json.dumps(deep).encode())
    assert '"x"' not in json.dumps(redaction.value(deep))


@pytest.mark.parametrize("pattern", ["[pq]in", "*", "?in", "пин*"])
def test_any_shell_pattern_works(pattern: str):
    name = "пинкод" if pattern == "пин*" else "pin"

    assert json.loads(Redaction([pattern]).raw(json.dumps({name: 1}).encode())) == {name: REDACTED}


def test_without_patterns_nothing_is_hidden():
    assert Redaction([]).raw(b'{"password":1}') == b'{"password":1}'


def test_arguments_by_place_are_hidden_by_their_names():
    assert redaction.positional(["user", "password"], ["ann", "x", "more"]) == ["ann", REDACTED, "more"]


names = st.sampled_from(["a", "b", "token", "Api-Key", "x_secret_y", "password", "päß", "card"])
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(names, inner)
)


@given(values, st.booleans())
def test_the_two_ways_agree_and_nothing_else_changes(value: Any, ascii: bool):
    raw = json.dumps(value, ensure_ascii=ascii).encode()

    assert json.loads(redaction.raw(raw)) == redaction.value(value) == plainly(value)


def plainly(value: Any) -> Any:
    """What is promised, as simply as it can be written."""
    if isinstance(value, dict):
        hidden = {"token", "Api-Key", "x_secret_y", "password", "card"}
        return {name: REDACTED if name in hidden else plainly(item) for name, item in value.items()}
    return [plainly(item) for item in value] if isinstance(value, list) else value
