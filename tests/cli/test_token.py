"""`celeriac token`: against a real ledger."""

import json
import re

import pytest

from celeriac.ledger import keys, open_ledger


@pytest.fixture
def ledger(celeriac, folder):
    celeriac("migrate")
    return open_ledger(f"sqlite:///{folder / '.celeriac' / 'ledger.db'}")


def test_a_token_is_shown_once_alone_on_stdout(celeriac, ledger):
    result = celeriac("token", "create", "--name", "ci", "--role", "viewer", "--owner", "ada", "--days", "2")
    secret = result.stdout.strip()

    assert keys.principal_of(ledger, secret).owner == "ada"
    assert secret not in celeriac("token", "list").output


def test_tokens_are_listed_with_what_became_of_them(celeriac, ledger):
    celeriac("token", "create", "--name", "one")
    celeriac("token", "create", "--name", "two", "--days", "0.5")
    celeriac("token", "revoke", "one")
    rows = {row["name"]: row for row in map(json.loads, celeriac("token", "list", "--json").stdout.splitlines())}

    assert set(rows) == {"one", "two"}
    assert rows["one"]["revoked_at"] is not None
    assert rows["one"]["role"] == "submitter"
    assert rows["two"]["expires_at"] > rows["two"]["created_at"]
    assert re.search(r"^one .* revoked ", celeriac("token", "list").stdout, re.MULTILINE)


def test_a_revoked_token_opens_nothing(celeriac, ledger):
    secret = celeriac("token", "create", "--name", "ci").stdout.strip()

    assert celeriac("token", "revoke", "ci").stdout == "Revoked ci.\n"
    assert keys.principal_of(ledger, secret) is None


def test_revoking_what_is_not_there_says_so(celeriac, ledger):
    result = celeriac("token", "revoke", "ghost")

    assert result.exit_code == 1
    assert "There is no token 'ghost' in force." in result.stderr


def test_login_prints_a_link_whose_ticket_works_once(celeriac, ledger):
    link = celeriac("token", "login").stdout.strip()
    ticket = link.removeprefix("http://127.0.0.1:8787/login?ticket=")

    assert keys.use_ticket(ledger, ticket) == ("local", "admin")
    assert keys.use_ticket(ledger, ticket) is None


def test_without_a_database_there_is_a_sentence_and_nothing_is_made(celeriac, folder):
    result = celeriac("token", "list")

    assert result.exit_code == 2
    assert "Make it with `celeriac migrate`" in result.stderr
    assert list(folder.iterdir()) == []
