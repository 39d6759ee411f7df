"""Settings: flags over environment over file; a wrong value stops with its variable's name."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from celeriac.errors import CannotStart
from celeriac.settings import Settings, load, prepare_home


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no file of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("CELERIAC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_anything_it_is_one_closed_instance_in_a_folder(tmp_path: Path):
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8787)

    assert settings.ledger_url == f"sqlite:///{tmp_path}/.celeriac/ledger.db"
    assert settings.token_path == Path(".celeriac/token")


def test_flags_win_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch):
    Path("celeriac.toml").write_text('port = 1\nhost = "file"\nlog_level = "DEBUG"\n')
    monkeypatch.setenv("CELERIAC_PORT", "2")
    monkeypatch.setenv("CELERIAC_HOST", "environment")

    settings = load(port=3, host=None)

    assert (settings.port, settings.host, settings.log_level) == (3, "environment", "DEBUG")


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_PORT", "")

    assert load().port == 8787


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CELERIAC_PORT", "99999"),
        ("CELERIAC_PORT", "http"),
        ("CELERIAC_LEASE_SECONDS", "0"),
        ("CELERIAC_MAX_DEATHS", "0"),
        ("CELERIAC_JOB_DAYS", "-1"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str):
    monkeypatch.setenv(variable, value)

    with pytest.raises(CannotStart, match=f"Wrong settings. {variable}: "):
        load()


def test_all_wrong_values_are_told_at_once():
    with pytest.raises(CannotStart, match=r"CELERIAC_PORT: .*; CELERIAC_MAX_DEATHS: "):
        load(port=-1, max_deaths=0)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        load().port = 1


def test_a_child_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    settings = load(
        port=0, home=tmp_path / "a home", database_url="sqlite:////x.db", allowed_hosts=["a.example", "b.example"],
        lease_seconds=7.5, app="module:app",
    )  # fmt: skip
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    assert load() == settings


def test_every_setting_says_what_it_is_for():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_database_url_wins_over_the_home(tmp_path: Path):
    assert load(database_url="sqlite:////x/y.db", home=tmp_path).ledger_url == "sqlite:////x/y.db"


def test_the_home_is_closed_to_others(tmp_path: Path):
    home = tmp_path / "deep" / "home"

    assert prepare_home(home) == home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700

    home.chmod(0o755)
    prepare_home(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_home_that_is_a_link_or_a_file_is_refused(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotStart, match="symbolic link"):
        prepare_home(tmp_path / "link")
    with pytest.raises(CannotStart, match="cannot be used"):
        prepare_home(tmp_path / "file")


def test_a_lease_shorter_than_three_beats_is_refused():
    with pytest.raises(CannotStart, match="CELERIAC_LEASE_SECONDS is 2, less than three times CELERIAC_BEAT_SECONDS"):
        load(lease_seconds=2, beat_seconds=1)


@pytest.mark.parametrize(
    "wrong", [{"broker_url": "redis://x"}, {"files_url": "s3://x"}, {"database_url": "postgresql://x"}]
)
def test_what_this_version_cannot_do_is_refused_and_not_ignored(wrong: dict[str, str]):
    with pytest.raises(CannotStart, match="in this version"):
        load(**wrong)
