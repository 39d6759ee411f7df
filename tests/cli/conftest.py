"""What the command line's tests share: a clean environment, an empty folder, terminals that are closed again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import _state
from click.testing import CliRunner, Result

from cli.terminal import Terminal


@pytest.fixture(scope="package", autouse=True)
def no_shared_tasks() -> Iterator[None]:
    """Keep what other tests share with every app (`@shared_task`) out of the apps made here."""
    kept = _state._on_app_finalizers
    _state._on_app_finalizers = set()
    yield
    _state._on_app_finalizers = kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without anybody's own settings."""
    import os

    for name in [name for name in os.environ if name.startswith("CELERIAC_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def celeriac(folder: Path) -> Callable[..., Result]:
    """Runs a command in this process, in the empty folder."""
    from celeriac.cli.group import celeriac as group

    return lambda *words, input=None: CliRunner().invoke(group, words, input=input, prog_name="celeriac")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals in the temporary folder."""
    opened: list[Terminal] = []

    def open(*words: str, folder: Path = tmp_path, **options: object) -> Terminal:
        opened.append(Terminal(folder, *words, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open
    for one in opened:
        one.close()
