"""What people type for arguments, durations and moments."""

from datetime import datetime, timedelta

import click
import pytest

from celeriac.cli.arguments import arguments, moment, seconds, value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("banana", "banana"), ("1", 1), ("1.5", 1.5), ("true", True), ("null", None), ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}), ('"1"', "1"), ("", ""), ("NaN", "NaN"), ("a=b", "a=b"), ("{broken", "{broken"),
    ],
)  # fmt: skip
def test_a_value_is_json_or_else_text(text: str, meant: object):
    assert value(text) == meant


def test_pairs_become_an_object():
    assert arguments(("a=1", "b=x=y"), None) == {"a": 1, "b": "x=y"}
    assert arguments((), None) == {}


def test_pairs_win_over_the_whole():
    assert arguments(("b=3",), '{"a": 1, "b": 2}') == {"a": 1, "b": 3}
    assert arguments((), "[1, 2]") == [1, 2]


def test_a_file_gives_its_text(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("123\n", "utf-8")

    assert arguments((f"a=@{file}",), None) == {"a": "123\n"}  # text, though it looks like a number
    file.write_text('{"a": 5}', "utf-8")
    assert arguments((), f"@{file}") == {"a": 5}


@pytest.mark.parametrize(
    ("pairs", "whole", "told"),
    [
        (("banana",), None, "'banana' is not name=value"),
        (("=1",), None, "is not name=value"),
        (("a=1", "a=2"), None, "'a' is given twice"),
        (("a=1",), "[1]", "--args is an array"),
        ((), "{broken", "--args is not JSON"),
        ((), "5", "must be a JSON object"),
        ((), "[NaN]", "NaN is not JSON"),
        (("a=@/no/such/file",), None, "/no/such/file cannot be read: No such file"),
    ],
)
def test_what_cannot_be_understood_is_named(pairs: tuple[str, ...], whole: str | None, told: str):
    with pytest.raises(click.UsageError, match=told.replace("[", r"\[")):
        arguments(pairs, whole)


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(click.UsageError, match="is not UTF-8 text"):
        value(f"@{tmp_path / 'picture'}")


@pytest.mark.parametrize(
    ("text", "meant"), [("90", 90), ("1.5", 1.5), ("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86400)]
)
def test_durations(text: str, meant: float):
    assert seconds(text) == meant


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 weeks", "m"])
def test_what_is_no_duration(text: str):
    with pytest.raises(click.BadParameter, match="is not a duration"):
        seconds(text)


def test_a_moment_keeps_its_zone_and_a_bare_one_is_local():
    assert datetime.fromisoformat(moment("2030-01-31T09:00:00+02:00")) == datetime.fromisoformat("2030-01-31T07:00:00Z")
    assert datetime.fromisoformat(moment("2030-01-31T09:00")) == datetime(2030, 1, 31, 9).astimezone()


@pytest.mark.parametrize(("towards", "length"), [(1, timedelta(hours=2)), (-1, timedelta(hours=-2))])
def test_a_duration_counts_from_now(towards: int, length: timedelta):
    before = datetime.now().astimezone()
    meant = datetime.fromisoformat(moment("2h", towards))

    assert before <= meant - length <= datetime.now().astimezone()


def test_what_is_no_moment():
    with pytest.raises(click.BadParameter, match="is not a moment"):
        moment("tomorrow")
