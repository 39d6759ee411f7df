"""Previews stay small and readable, ids sort by age, and text is made storable, whatever comes."""

import json
import re
from dataclasses import FrozenInstanceError, fields
from uuid import UUID

import pytest
from conformance.moves import submission
from conformance.test_nodes import NODE
from hypothesis import given
from hypothesis import strategies as st

from celeriac.jobs import PREVIEW_BYTES, Filter, Submission, Worker, new_id, preview, storable

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inside: st.lists(inside) | st.dictionaries(TEXT, inside) | st.tuples(inside, inside),
)


@given(VALUES)
def test_a_preview_is_json_of_a_bounded_size(value: object):
    text = preview(value)

    json.loads(text)
    assert len(text.encode()) <= PREVIEW_BYTES


@pytest.mark.parametrize("letter", ["x", '"', "\\", "\0", "é", "😀", "\n"])
@pytest.mark.parametrize("shape", [lambda text: text, lambda text: [text] * 30, lambda text: {text: [text] * 9}])
def test_a_preview_of_long_texts_is_bounded_whatever_the_letters(letter: str, shape):
    assert len(preview(shape(letter * 5000)).encode()) <= PREVIEW_BYTES


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "text", [1, [2]], {"a": {"b": "c"}}, 10**30])
def test_what_is_short_is_shown_whole(value: object):
    assert json.loads(preview(value)) == value


def test_what_is_long_is_cut_and_marked():
    assert json.loads(preview("x" * 500)) == "x" * 119 + "…"
    assert json.loads(preview(list(range(25)))) == [*range(20), "…"]
    assert json.loads(preview({str(n): n for n in range(25)})).keys() == {*map(str, range(20)), "…"}
    assert json.loads(preview([[[[["deep"]]]]])) == [[[["…"]]]]


def test_a_preview_leaves_its_value_alone():
    value = {"a": ["x" * 500]}
    preview(value)

    assert value == {"a": ["x" * 500]}


@given(st.text())
def test_storable_text_is_what_every_database_takes(text: str):
    kept = storable(text)

    kept.encode()
    assert "\0" not in kept
    assert len(kept) == len(text)


def test_storable_text_is_bounded():
    assert storable("x" * 10, 10) == "x" * 10
    assert storable("x" * 11, 10) == "x" * 9 + "…"
    assert storable("a\0b\ud800c") == "a\ufffdb\ufffdc"


def test_ids_are_uuids_of_version_7_that_sort_by_age():
    ids = [new_id() for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert {(UUID(id).version, UUID(id).variant) for id in ids} == {(7, "specified in RFC 4122")}
    stamps = [id[:13] for id in ids]
    assert stamps == sorted(stamps)
    assert all(re.fullmatch(r"[0-9a-f-]{36}", id) for id in ids)


def test_what_is_passed_between_the_parts_is_frozen():
    """Submission and its like are so for the type checker alone (`jobs.record`); they take no other fields."""
    with pytest.raises(FrozenInstanceError):
        Filter().q = "other"
    with pytest.raises(AttributeError):
        submission().colour = "red"
    assert not hasattr(submission(), "__dict__")
    assert "id" in {field.name for field in fields(Submission)}


def test_an_empty_filter_narrows_nothing():
    assert all(not getattr(Filter(), field.name) for field in fields(Filter))


@pytest.mark.parametrize(("fact", "online"), [({}, True), ({"stopped_at": 1}, False), ({"lost_at": 1}, False)])
def test_a_worker_is_online_until_it_stops_or_is_given_up(fact: dict, online: bool):
    about = {field.name: getattr(NODE, field.name) for field in fields(Worker)}

    assert Worker(**about | fact).online is online
