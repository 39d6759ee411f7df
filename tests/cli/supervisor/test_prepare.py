"""Making the home ready: database, token, ticket; and what stands in the way."""

from pathlib import Path

import pytest

from celeriac.cli.supervisor.prepare import prepare
from celeriac.ledger import keys, open_ledger
from celeriac.settings import Settings, prepare_home


@pytest.fixture
def settings(folder: Path) -> Settings:
    return Settings(home=prepare_home(folder / "home"), app="celeriac.demo.tasks:app")


def test_the_token_opens_the_door_and_is_closed_to_others(settings):
    prepared = prepare(settings)
    ledger = open_ledger(settings.ledger_url)

    assert (prepared.trouble, prepared.migrated) == ("", False)
    assert prepared.example == "celeriac submit crunch seconds=…"
    assert keys.principal_of(ledger, settings.token_path.read_text().strip()).owner == "local"
    assert settings.token_path.stat().st_mode & 0o777 == 0o600
    assert keys.use_ticket(ledger, prepared.ticket) == ("local", "admin")


def test_the_token_stays_the_same_and_is_closed_again(settings):
    prepare(settings)
    secret = settings.token_path.read_text()
    settings.token_path.chmod(0o644)
    prepare(settings)

    assert settings.token_path.read_text() == secret
    assert settings.token_path.stat().st_mode & 0o777 == 0o600


def test_a_new_database_takes_over_the_token_that_is_there(settings):
    settings.token_path.write_text("cel_known-elsewhere\n")
    prepare(settings)

    assert keys.principal_of(open_ledger(settings.ledger_url), "cel_known-elsewhere") is not None


def test_a_revoked_token_is_replaced(settings):
    prepare(settings)
    secret, ledger = settings.token_path.read_text(), open_ledger(settings.ledger_url)
    keys.revoke_token(ledger, "home")
    prepare(settings)

    assert settings.token_path.read_text() != secret
    assert keys.principal_of(ledger, settings.token_path.read_text().strip()) is not None


def test_an_app_that_is_not_there_is_the_trouble_and_nothing_is_made(settings):
    prepared = prepare(settings.model_copy(update={"app": "no_such_app_anywhere"}))

    assert "There is no module 'no_such_app_anywhere'" in prepared.trouble
    assert list(settings.home.iterdir()) == []
