"""A worker's folder goes with it, or with the next worker; nobody's else does."""

import os
import signal
import tempfile
from multiprocessing import get_context
from pathlib import Path

import pytest

from celeriac.worker.slots import PREFIX, Slots


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hold(folder: str, ready) -> None:
    tempfile.tempdir = folder
    slots = Slots()
    (slots.folder / "1.lines").write_text("what a job logged")
    ready.set()
    signal.pause()


@pytest.fixture
def killed(folder: Path):
    """A process with a folder of its own, to be killed."""
    context = get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=[str(folder), ready], daemon=True)
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def folders(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def test_a_folder_goes_with_its_worker(folder: Path):
    Slots().close()

    assert folders(folder) == []


def test_what_a_killed_worker_left_goes_with_the_next_one_and_not_before(folder: Path, killed):
    [left] = folders(folder)
    first = Slots()
    assert left in folders(folder)

    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    second = Slots()
    assert folders(folder) == sorted([first.folder, second.folder])
    first.close()
    second.close()


def test_other_folders_and_those_that_are_just_being_made_stay(folder: Path):
    others = [folder / f"{PREFIX}new", folder / "celeriac-x", folder / f"{PREFIX}file"]
    for other in others[:2]:
        other.mkdir()
    (others[0] / "new").touch()
    others[2].touch()

    Slots().close()
    assert all(other.exists() for other in others)
