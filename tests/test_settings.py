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


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PORT", "x", "CELERIAC_PORT: 'x' is not a whole number"),
        ("PORT", "70000", "CELERIAC_PORT: 70000 is too large; the most is 65,535"),
        ("BEAT_SECONDS", "0", "CELERIAC_BEAT_SECONDS: 0 is too small; it must be more than 0"),
        ("METRICS", "maybe", "CELERIAC_METRICS: 'maybe' is neither true nor false"),
        ("ALLOWED_HOSTS", "a.example", "CELERIAC_ALLOWED_HOSTS is not a JSON list"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str):
    monkeypatch.setenv(f"CELERIAC_{variable}", value)

    with pytest.raises(CannotStart) as caught:
        load()
    assert told in str(caught.value)


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


def test_what_this_version_cannot_do_is_refused_and_not_ignored():
    with pytest.raises(CannotStart, match="in this version"):
        load(files_url="s3://x")


@pytest.mark.parametrize("url", ["sqs://me:hidden@x", "redis:/me:hidden@x", "memory://hidden", "amqp://me:hidden@x:y/"])
def test_another_broker_is_refused_without_saying_its_password(url: str):
    with pytest.raises(CannotStart, match="CELERIAC_BROKER_URL") as told:
        load(broker_url=url)

    assert "hidden" not in str(told.value)


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "redis", "rediss"])
def test_a_broker_is_rabbitmq_or_redis(scheme: str):
    assert load(broker_url=f"{scheme}://me:hidden@mq/jobs").broker_url == f"{scheme}://me:hidden@mq/jobs"


def test_postgres_is_spoken_to_by_psycopg_however_its_url_begins():
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        settings = load(database_url=f"{scheme}://me@db/jobs")
        assert settings.ledger_url == "postgresql+psycopg://me@db/jobs"
        assert settings.announcements_url == "postgresql://me@db/jobs"


def test_behind_a_pgbouncer_nothing_is_prepared_and_the_server_itself_is_listened_to():
    settings = load(database_url="postgresql://me@bouncer/jobs?a=b", database_direct_url="postgresql://me@db/jobs")

    assert settings.ledger_url == "postgresql+psycopg://me@bouncer/jobs?a=b&prepare_threshold=0"
    assert settings.announcements_url == "postgresql://me@db/jobs"


@pytest.mark.parametrize(
    "wrong",
    [
        {"database_url": "mysql://x"},
        {"database_direct_url": "postgresql://x"},
        {"database_url": "postgresql://x", "database_direct_url": "redis://x"},
    ],
)
def test_another_database_is_refused(wrong: dict[str, str]):
    with pytest.raises(CannotStart, match=r"postgresql://|goes with"):
        load(**wrong)
