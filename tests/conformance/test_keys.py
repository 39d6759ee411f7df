"""Tokens and tickets: only who holds a secret gets in, and a ticket opens the door once."""

import threading

import pytest

from celeriac import clock
from celeriac.access import Permission
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.errors import InvalidRequest, TokenNotFound
from celeriac.ledger import Ledger, keys
from conformance.moves import SECOND, select


def test_a_token_opens_for_its_owner_and_role(ledger: Ledger):
    secret = keys.create_token(ledger, "laptop", "ann", Role.SUBMITTER)

    principal = keys.principal_of(ledger, secret)

    assert principal.owner == "ann"
    assert principal.permissions == PERMISSIONS[Role.SUBMITTER]
    assert not principal.may(Permission.TOKENS)


def test_a_token_for_some_tasks_carries_their_patterns(ledger: Ledger):
    some = keys.create_token(ledger, "ci", "ann", Role.SUBMITTER, tasks=["mail.*", "lcs"])
    every = keys.create_token(ledger, "laptop", "ann", Role.SUBMITTER)

    assert keys.principal_of(ledger, some).tasks == ("mail.*", "lcs")
    assert keys.principal_of(ledger, every).tasks == ()
    assert {token.name: token.tasks for token in keys.all_tokens(ledger)} == {"ci": ("mail.*", "lcs"), "laptop": ()}


def test_everything_that_is_wrong_with_a_token_is_told_at_once_and_none_is_made(ledger: Ledger):
    with pytest.raises(InvalidRequest) as refusal:
        keys.create_token(ledger, " ", "a,b", Role.VIEWER, tasks=["", "mail.*"])

    assert [fault.path for fault in refusal.value.faults] == ["/name", "/owner", "/tasks", "/tasks/0"]
    assert keys.all_tokens(ledger) == []


def test_a_token_is_found_by_its_id(ledger: Ledger):
    keys.create_token(ledger, "laptop", "ann", Role.VIEWER)
    [token] = keys.all_tokens(ledger)

    assert keys.token(ledger, token.id) == token
    with pytest.raises(TokenNotFound):
        keys.token(ledger, "nothing")


@pytest.mark.parametrize("secret", ["", "cel_wrong", "'; DROP TABLE tokens; --", "\ud800", "\0"])
def test_an_unknown_secret_opens_nothing(ledger: Ledger, secret: str):
    keys.create_token(ledger, "laptop", "ann", Role.ADMIN)

    assert keys.principal_of(ledger, secret) is None
    assert keys.use_ticket(ledger, secret) is None


def test_no_secret_is_kept(ledger: Ledger):
    token = keys.create_token(ledger, "laptop", "ann", Role.ADMIN)
    ticket = keys.create_ticket(ledger, "ann", Role.ADMIN)

    session = keys.create_session(ledger, "ann", Role.ADMIN, 60)

    rows = str([select(ledger, f"SELECT * FROM {table}") for table in ("tokens", "tickets", "sessions")])
    assert [secret for secret in (token, ticket, session) if secret in rows] == []


def test_a_digest_is_no_secret(ledger: Ledger):
    keys.create_token(ledger, "laptop", "ann", Role.ADMIN)
    [(digest,)] = select(ledger, "SELECT digest FROM tokens")

    assert keys.principal_of(ledger, digest) is None


def test_a_token_ends_at_its_expiry(ledger: Ledger, fake_clock):
    secret = keys.create_token(ledger, "laptop", "ann", Role.VIEWER, clock.micros() + 10 * SECOND)

    fake_clock.advance(9)
    assert keys.principal_of(ledger, secret) is not None
    fake_clock.advance(1)
    assert keys.principal_of(ledger, secret) is None


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_revoked_token_opens_nothing(ledger: Ledger, by: str):
    secret = keys.create_token(ledger, "laptop", "ann", Role.VIEWER)
    other = keys.create_token(ledger, "desk", "ann", Role.VIEWER)
    [token] = [token for token in keys.all_tokens(ledger) if token.name == "laptop"]

    assert keys.revoke_token(ledger, getattr(token, by)) == 1

    assert keys.principal_of(ledger, secret) is None
    assert keys.principal_of(ledger, other) is not None
    assert keys.revoke_token(ledger, getattr(token, by)) == 0


def test_all_tokens_are_listed_newest_first_with_what_became_of_them(ledger: Ledger, fake_clock):
    for name in ("one", "two"):
        keys.create_token(ledger, name, "ann", Role.VIEWER)
        fake_clock.advance(1)
    keys.revoke_token(ledger, "one")

    tokens = keys.all_tokens(ledger)
    assert [(token.name, token.role, token.revoked_at is None) for token in tokens] == [
        ("two", Role.VIEWER, True),
        ("one", Role.VIEWER, False),
    ]


def test_a_token_of_the_home_folder_is_remembered_once(ledger: Ledger):
    for _ in range(2):
        keys.remember_token(ledger, "cel_home", "home", "me", Role.ADMIN)

    assert len(keys.all_tokens(ledger)) == 1
    assert keys.principal_of(ledger, "cel_home").owner == "me"


def test_remembering_a_revoked_token_does_not_bring_it_back(ledger: Ledger):
    keys.remember_token(ledger, "cel_home", "home", "me", Role.ADMIN)
    keys.revoke_token(ledger, "home")

    keys.remember_token(ledger, "cel_home", "home", "me", Role.ADMIN)

    assert keys.principal_of(ledger, "cel_home") is None


def test_a_ticket_opens_once(ledger: Ledger):
    ticket = keys.create_ticket(ledger, "ann", Role.OPERATOR)

    assert keys.use_ticket(ledger, ticket) == ("ann", Role.OPERATOR)
    assert keys.use_ticket(ledger, ticket) is None


def test_a_ticket_opens_for_one_of_many_who_come_at_once(ledger: Ledger):
    ticket = keys.create_ticket(ledger, "ann", Role.OPERATOR)
    opened = []

    threads = [threading.Thread(target=lambda: opened.append(keys.use_ticket(ledger, ticket))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(opened, key=str) == [("ann", Role.OPERATOR), *[None] * 7]


def test_an_old_ticket_opens_nothing(ledger: Ledger, fake_clock):
    ticket = keys.create_ticket(ledger, "ann", Role.OPERATOR, seconds=5)
    fake_clock.advance(5)

    assert keys.use_ticket(ledger, ticket) is None


def test_a_ticket_is_no_token_and_a_token_no_ticket(ledger: Ledger):
    assert keys.principal_of(ledger, keys.create_ticket(ledger, "ann", Role.ADMIN)) is None
    assert keys.use_ticket(ledger, keys.create_token(ledger, "laptop", "ann", Role.ADMIN)) is None


def test_a_session_opens_for_its_owner_and_role_until_its_time_is_over(ledger: Ledger, fake_clock):
    secret = keys.create_session(ledger, "ann", Role.SUBMITTER, 10)

    fake_clock.advance(9)
    principal = keys.session_of(ledger, secret)
    assert (principal.owner, principal.permissions) == ("ann", PERMISSIONS[Role.SUBMITTER])
    fake_clock.advance(1)
    assert keys.session_of(ledger, secret) is None


def test_an_ended_session_opens_nothing_and_the_others_go_on(ledger: Ledger):
    one, two = (keys.create_session(ledger, "ann", Role.ADMIN, 60) for _ in range(2))
    for _ in range(2):
        keys.end_session(ledger, one)

    assert keys.session_of(ledger, one) is None
    assert keys.session_of(ledger, two) is not None


def test_all_sessions_of_an_owner_end_together(ledger: Ledger):
    mine = [keys.create_session(ledger, "ann", Role.ADMIN, 60) for _ in range(3)]
    other = keys.create_session(ledger, "bob", Role.ADMIN, 60)

    assert keys.end_sessions(ledger, "ann") == 3
    assert [keys.session_of(ledger, secret) for secret in mine] == [None] * 3
    assert keys.session_of(ledger, other) is not None
    assert keys.end_sessions(ledger, "ann") == 0


def test_tokens_tickets_and_sessions_do_not_open_for_each_other(ledger: Ledger):
    session = keys.create_session(ledger, "ann", Role.ADMIN, 60)
    token = keys.create_token(ledger, "laptop", "ann", Role.ADMIN)

    assert keys.principal_of(ledger, session) is None
    assert keys.use_ticket(ledger, session) is None
    assert keys.session_of(ledger, token) is None
