"""`celeriac token`: against a real ledger."""

import json
import re
from datetime import UTC, datetime

import pytest

from celeriac.access import Role
from celeriac.ledger import keys, open_ledger


@pytest.fixture
def ledger(celeriac, folder):
    celeriac("migrate")
    return open_ledger(f"sqlite:///{folder / '.celeriac' / 'ledger.db'}")


def test_a_token_is_shown_once_alone_on_stdout(celeriac, ledger):
    result = celeriac("token", "create", "ci", "--role", "viewer", "--owner", "ada", "--expires", "2d")
    secret = result.stdout.strip()

    assert keys.principal_of(ledger, secret).owner == "ada"
    assert secret not in celeriac("token", "list").output


def test_a_token_as_json_is_as_in_the_list_with_its_secret(celeriac, ledger):
    result = celeriac("token", "create", "ci", "--owner", "ada", "--task", "mail.*", "--expires", "2d", "--json")
    token = json.loads(result.stdout)

    assert keys.principal_of(ledger, token.pop("secret")).owner == "ada"
    assert token == json.loads(celeriac("token", "list", "--json").stdout)
    assert result.stderr == ""


def test_tokens_are_listed_with_what_became_of_them(celeriac, ledger):
    celeriac("token", "create", "one")
    celeriac("token", "create", "two", "--expires", "12h")
    celeriac("token", "revoke", "one")
    rows = {row["name"]: row for row in map(json.loads, celeriac("token", "list", "--json").stdout.splitlines())}

    assert set(rows) == {"one", "two"}
    assert rows["one"]["revoked_at"] is not None
    assert rows["one"]["role"] == "submitter"
    assert rows["two"]["expires_at"] > rows["two"]["created_at"]
    assert re.search(r"^one .* revoked ", celeriac("token", "list").stdout, re.MULTILINE)


def test_a_token_can_be_for_some_tasks_only(celeriac, ledger):
    result = celeriac("token", "create", "ci", "--task", "mail.*", "--task", "lcs")
    [row] = map(json.loads, celeriac("token", "list", "--json").stdout.splitlines())

    assert keys.principal_of(ledger, result.stdout.strip()).tasks == ("mail.*", "lcs")
    assert row["tasks"] == ["mail.*", "lcs"]
    assert "mail.*, lcs" in celeriac("token", "list").stdout


@pytest.mark.parametrize("name", ["", " ci", "a\nb", "x" * 65, "\x1b[31mred"])
def test_a_name_that_a_list_cannot_show_is_refused(celeriac, ledger, name: str):
    result = celeriac("token", "create", name)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "/name must have 1 to 64 printable characters" in result.stderr
    assert keys.all_tokens(ledger) == []


def test_tasks_of_an_admin_cannot_be_narrowed(celeriac, ledger):
    result = celeriac("token", "create", "ci", "--role", "admin", "--task", "mail.*")

    assert "/tasks narrow a submitter or an operator, not admin" in result.stderr


@pytest.mark.parametrize("length", ["0d", "-1d", "30", "soon", "101000d", "1e9d", ""])
def test_a_wrong_length_of_time_is_refused(celeriac, ledger, length: str):
    result = celeriac("token", "create", "ci", "--expires", length)

    assert result.exit_code == 2
    assert "is not a length of time such as 30d" in result.stderr


def test_a_revoked_token_opens_nothing(celeriac, ledger):
    secret = celeriac("token", "create", "ci").stdout.strip()

    assert celeriac("token", "revoke", "ci").stdout == "Revoked ci.\n"
    assert keys.principal_of(ledger, secret) is None


def test_the_sessions_of_an_owner_are_ended(celeriac, ledger):
    secret = keys.create_session(ledger, "ann", Role.ADMIN, 60)

    assert celeriac("token", "revoke", "--sessions", "ann").stdout == "Ended 1 session of ann.\n"
    assert keys.session_of(ledger, secret) is None
    assert celeriac("token", "revoke", "--sessions", "ann").stdout == "Ended 0 sessions of ann.\n"


def test_revoking_nothing_is_a_mistake(celeriac, ledger):
    result = celeriac("token", "revoke")

    assert result.exit_code == 2
    assert "Name a token, or an owner with --sessions" in result.stderr


def test_revoking_what_is_not_there_says_so(celeriac, ledger):
    result = celeriac("token", "revoke", "ghost")

    assert result.exit_code == 1
    assert "There is no token 'ghost' in force." in result.stderr


def test_a_name_that_several_tokens_have_asks_for_the_id_or_for_all(celeriac, ledger):
    secrets = [celeriac("token", "create", "ci").stdout.strip() for _ in range(2)]
    refused = celeriac("token", "revoke", "ci")
    ids = [token.id for token in keys.all_tokens(ledger)]

    assert refused.exit_code == 2
    assert all(id in refused.stderr for id in ids)
    assert all(keys.principal_of(ledger, secret) for secret in secrets)
    assert celeriac("token", "revoke", ids[0]).exit_code == 0
    celeriac("token", "create", "ci")
    assert celeriac("token", "revoke", "ci", "--all").stdout == "Revoked 2 tokens called ci.\n"


def test_the_list_shows_id_and_role_in_full_on_a_narrow_terminal(celeriac, ledger, monkeypatch):
    celeriac("token", "create", "continuous-integration", "--role", "operator", "--owner", "somebody-or-other")
    monkeypatch.setattr("celeriac.cli.output.PIPE_WIDTH", 60)
    shown = celeriac("token", "list").stdout
    [token] = keys.all_tokens(ledger)

    assert f"  {token.id}\n" in shown
    assert "  operator  " in shown
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize("role", ["admin", "submitter"])
def test_what_it_may_is_said_in_good_english(celeriac, ledger, role: str):
    article = "an" if role == "admin" else "a"

    assert f"what {article} {role} may" in celeriac("token", "create", "ci", "--role", role).stderr


def test_login_prints_a_link_whose_ticket_works_once(celeriac, ledger):
    link = celeriac("token", "login").stdout.strip()
    ticket = link.removeprefix("http://127.0.0.1:8787/login?ticket=")

    assert keys.use_ticket(ledger, ticket) == ("local", "admin")
    assert keys.use_ticket(ledger, ticket) is None


def test_login_as_json_says_for_whom_and_until_when(celeriac, ledger):
    result = celeriac("token", "login", "--owner", "ada", "--json")
    login = json.loads(result.stdout)
    ticket = login["url"].removeprefix("http://127.0.0.1:8787/login?ticket=")

    assert keys.use_ticket(ledger, ticket) == ("ada", "admin")
    assert login["owner"] == "ada"
    assert 590 < (datetime.fromisoformat(login["expires_at"]) - datetime.now(UTC)).total_seconds() <= 600
    assert result.stderr == ""


def test_without_a_database_there_is_a_sentence_and_nothing_is_made(celeriac, folder):
    result = celeriac("token", "list")

    assert result.exit_code == 2
    assert "Make it with `celeriac migrate`" in result.stderr
    assert list(folder.iterdir()) == []
