"""What of arguments is refused before a worker would refuse it."""

import pytest

from celeriac.app.signature import Signature
from celeriac.errors import InvalidArguments


def by_place(x: int, y: str = "", /) -> None:
    """Takes both without names."""


def all_of(first: str, *numbers: int, times: int = 1) -> None:
    """Takes any number of numbers."""


def kept_apart(*numbers: int, key: str) -> None:
    """Wants a name behind the numbers."""


def undescribed(*things: "Nobody knows") -> None:  # noqa: F722
    """Has a type that is none."""


@pytest.mark.parametrize(
    ("run", "given"),
    [
        (by_place, b"[1]"),
        (by_place, b'[1, "a"]'),
        (all_of, b'["a"]'),
        (all_of, b'["a", 1, 2, 3]'),
        (undescribed, b'["a", 1]'),
    ],
)
def test_a_list_that_fits_stays_the_bytes_it_was(run, given: bytes):
    assert Signature("task", run).bound(given) == (given, None)


@pytest.mark.parametrize(
    ("run", "given", "path", "told"),
    [
        (by_place, b'["x"]', "/args/x", "valid integer"),
        (by_place, b"[1, 2]", "/args/y", "valid string"),
        (by_place, b"[]", "/args/0", "is missing: x"),
        (by_place, b'[1, "a", 2]', "/args/2", "one too many"),
        (by_place, b'{"x": "x"}', "/args/x", "valid integer"),
        (all_of, b'["a", 1, "b", 3]', "/args/2", "valid integer"),
        (all_of, b"[1]", "/args/first", "valid string"),
        (kept_apart, b"[1]", "/args/key", "is missing"),
    ],
)
def test_a_list_is_held_against_the_types_as_an_object_is(run, given: bytes, path: str, told: str):
    with pytest.raises(InvalidArguments) as refused:
        Signature("task", run).bound(given)

    assert [fault.path for fault in refused.value.faults] == [path]
    assert told in refused.value.faults[0].message
