"""Tokens over HTTP: made, shown once, narrowed to tasks, revoked."""

from typing import Any

import httpx
import pytest

from celeriac.access import Role
from celeriac.ledger import keys
from web.house import House, unique

TOKENS, JOBS = "/api/v1/tokens", "/api/v1/jobs"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make(house: House, **fields: Any) -> dict[str, Any]:
    response = house.client().post(TOKENS, json={"name": unique("token"), **fields})
    assert response.status_code == 201, response.text
    told: dict[str, Any] = response.json()
    return told


def test_a_secret_is_shown_once_and_opens_for_its_owner(shared: House):
    made = make(shared, role="viewer", owner="vera", expires_at="2099-01-01T00:00:00Z")

    assert (made["owner"], made["role"], made["tasks"]) == ("vera", "viewer", [])
    assert made["expires_at"].startswith("2099-01-01T00:00:00")
    assert shared.client(role=None).get(JOBS, headers=bearer(made["secret"])).status_code == 200
    listed = shared.client().get(TOKENS)
    assert made["secret"] not in listed.text
    assert {key: value for key, value in made.items() if key != "secret"} in listed.json()["tokens"]


def test_a_token_is_a_submitter_called_like_its_owner_if_nothing_else_is_said(shared: House):
    made = make(shared)

    assert (made["owner"], made["role"], made["expires_at"]) == (made["name"], "submitter", None)


def test_a_revoked_token_opens_nothing_and_may_be_revoked_again(shared: House):
    made = make(shared)
    first, second = (shared.client().delete(f"{TOKENS}/{made['id']}") for _ in range(2))

    assert first.json()["revoked_at"] is not None
    assert first.json() == second.json()
    assert shared.client(role=None).get(JOBS, headers=bearer(made["secret"])).status_code == 401


def test_a_token_is_revoked_by_its_id_alone(shared: House):
    made = make(shared)

    for other in (made["name"], "nothing", "%00", "x" * 300):
        response = shared.client().delete(f"{TOKENS}/{other}")
        assert (response.status_code, response.json()["code"]) == (404, "token-not-found")
    assert keys.token(shared.ledger, made["id"]).revoked_at is None


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"name": ""}, ["/name", "/owner"]),
        ({"name": "a\nb", "owner": "a,b"}, ["/name", "/owner"]),
        ({"role": "root"}, ["/role"]),
        ({"role": "admin", "tasks": ["mail.*"]}, ["/tasks"]),
        ({"tasks": ["", "x" * 256]}, ["/tasks/0", "/tasks/1"]),
        ({"tasks": "mail.*"}, ["/tasks"]),
        ({"expires_at": "2001-01-01T00:00:00Z"}, ["/expires_at"]),
        ({"expires_at": "2999-01-01T00:00:00Z"}, ["/expires_at"]),
        ({"secret": "cel_mine"}, ["/secret"]),
    ],
)
def test_everything_wrong_with_a_token_is_told_at_once(shared: House, fields: dict[str, Any], paths: list[str]):
    before = len(keys.all_tokens(shared.ledger))
    response = shared.client().post(TOKENS, json={"name": "ci", **fields})

    assert response.status_code == 422, response.text
    assert [fault["path"] for fault in response.json()["errors"]] == paths
    assert len(keys.all_tokens(shared.ledger)) == before


@pytest.fixture
def narrowed(shared: House) -> httpx.Client:
    """A client whose token is for adding alone."""
    made = make(shared, owner=unique("owner"), tasks=["ad*"])
    return httpx.Client(base_url=shared.url, headers=bearer(made["secret"]), trust_env=False)


def test_a_role_that_is_none_is_told_with_those_there_are(shared: House):
    response = shared.client().post(TOKENS, json={"name": "ci", "role": "god"})

    [fault] = response.json()["errors"]
    assert fault == {"path": "/role", "message": "must be one of viewer, submitter, operator, admin, not 'god'"}


def test_a_token_for_some_tasks_sees_only_those(narrowed: httpx.Client):
    with narrowed:
        shown = [task["name"] for task in narrowed.get("/api/v1/tasks").json()["tasks"]]

    assert shown == ["add"]


def test_a_token_for_some_tasks_submits_only_those(narrowed: httpx.Client):
    with narrowed:
        good = narrowed.post(JOBS, json={"task": "add", "args": [1]})
        bad = narrowed.post(JOBS, json={"task": "echo"})

    assert good.status_code == 202
    assert (bad.status_code, bad.json()["code"]) == (403, "task-not-allowed")


def test_a_token_for_some_tasks_retries_only_those(shared: House, narrowed: httpx.Client):
    with narrowed:
        owner = narrowed.post(JOBS, json={"task": "add", "args": [1]}).json()["owner"]
        ids = [shared.submit(task, owner, Role.SUBMITTER, args=[1])["id"] for task in ("add", "echo")]
        for id in ids:
            assert narrowed.put(f"{JOBS}/{id}/cancellation").status_code == 202
        answers = [narrowed.post(f"{JOBS}/{id}/retries") for id in ids]

    assert [answer.status_code for answer in answers] == [202, 403]
    assert answers[1].json()["code"] == "task-not-allowed"
