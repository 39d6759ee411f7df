"""Noticing changes: which files count, and how they are told."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.cli.supervisor.changes import Changed, Changes


@pytest.fixture
def heard(tmp_path: Path) -> Iterator["queue.SimpleQueue[Changed]"]:
    heard: queue.SimpleQueue[Changed] = queue.SimpleQueue()
    (tmp_path / "home").mkdir()
    (tmp_path / "pack").mkdir()
    changes = Changes(tmp_path, tmp_path / "home", heard.put)
    yield heard
    changes.close()


def written_until_heard(heard: "queue.SimpleQueue[Changed]", file: Path) -> Changed:
    """The watching begins at some moment after the start: writes until it is noticed."""
    for number in range(100):
        file.write_text(f"# {number}")
        try:
            return heard.get(timeout=1)
        except queue.Empty:
            continue
    raise AssertionError(f"{file} was never noticed")


def test_a_python_file_below_the_folder_counts_and_nothing_else_does(heard, tmp_path: Path):
    assert written_until_heard(heard, tmp_path / "first.py").paths == ("first.py",)
    while not heard.empty():
        heard.get()
    for other in ("notes.txt", "home/kept.py", "pack/.hidden.swp"):
        (tmp_path / other).write_text("")

    changed = written_until_heard(heard, tmp_path / "pack" / "mine.py")
    assert set(changed.paths) <= {"pack/mine.py", "first.py"}


def test_a_burst_is_told_in_one_line():
    assert str(Changed(("a.py",))) == "a.py changed"
    assert str(Changed(("a.py", "b.py", "c.py", "d.py", "e.py"))) == "a.py, b.py, c.py and 2 more changed"
