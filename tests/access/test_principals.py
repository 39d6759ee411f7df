"""Who may do what: roles, and whose jobs somebody sees and controls."""

import pytest

from celeriac.access import SYSTEM, Permission, Principal, Role
from celeriac.access.principals import PERMISSIONS


def somebody(role: Role, owner: str = "ann") -> Principal:
    return Principal(owner, PERMISSIONS[role])


def test_every_role_has_permissions_and_none_is_public():
    assert set(PERMISSIONS) == set(Role)
    assert [role for role in Role if role is not Role.ADMIN and Permission.PUBLIC in PERMISSIONS[role]] == []


def test_roles_grow():
    assert PERMISSIONS[Role.VIEWER] < PERMISSIONS[Role.OPERATOR] < PERMISSIONS[Role.ADMIN]
    assert PERMISSIONS[Role.SUBMITTER] < PERMISSIONS[Role.OPERATOR]


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.ADMIN}))
def test_only_an_admin_manages_tokens(role: Role):
    assert not somebody(role).may(Permission.TOKENS)
    assert somebody(Role.ADMIN).may(Permission.TOKENS)


def test_what_is_public_needs_nothing():
    assert Principal("nobody", frozenset()).may(Permission.PUBLIC)
    assert [permission for permission in Permission if Principal("nobody", frozenset()).may(permission)] == [
        Permission.PUBLIC
    ]


@pytest.mark.parametrize(
    ("role", "sees", "controls"),
    [
        (Role.VIEWER, True, False),
        (Role.SUBMITTER, False, False),
        (Role.OPERATOR, True, True),
        (Role.ADMIN, True, True),
    ],
)
def test_others_jobs_are_for_those_who_may(role: Role, sees: bool, controls: bool):
    assert (somebody(role).sees("bob"), somebody(role).controls("bob")) == (sees, controls)
    assert (somebody(role).sees("ann"), somebody(role).controls("ann")) == (True, True)


def test_who_controls_sees():
    for role in Role:
        assert not somebody(role).controls("bob") or somebody(role).sees("bob")


def test_the_system_may_everything():
    assert all(SYSTEM.may(permission) for permission in Permission)


@pytest.mark.parametrize(
    ("patterns", "task", "may"),
    [
        ((), "mail.send", True),
        (("mail.*",), "mail.send", True),
        (("mail.*",), "mailbox", False),
        (("mail.*",), "Mail.send", False),
        (("lcs", "mail.*"), "lcs", True),
        (("lcs",), "lcs2", False),
        (("[ab]?",), "b1", True),
    ],
)
def test_patterns_say_which_tasks_a_token_may_run(patterns: tuple[str, ...], task: str, may: bool):
    assert Principal("ann", PERMISSIONS[Role.SUBMITTER], patterns).may_run(task) is may
