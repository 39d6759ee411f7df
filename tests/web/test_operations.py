"""Operations on a filter over HTTP: what may be asked, what is told, and who sees it."""

from typing import Any

import httpx
import pytest

from celeriac.access import SYSTEM, Role
from celeriac.keeper.leader import Leader
from celeriac.keeper.operator import Operator
from celeriac.ledger import read
from celeriac.states import State
from web.house import JSON, House, unique

CANCELLATIONS, RETRIES, OPERATIONS = "/api/v1/cancellations", "/api/v1/retries", "/api/v1/operations"


def work_off(house: House) -> None:
    """Do what a keeper does, until no operation is open."""
    leader = Leader(house.ledger, 6)
    leader.tick()
    duty = Operator(leader)
    while duty.tick() == 0:
        pass
    leader.release()


def test_everything_that_matches_is_cancelled_and_the_counts_are_told(shared: House):
    queue = unique("queue")
    ids = [shared.submit(queue=queue)["id"] for _ in range(3)]
    asked = shared.client().post(CANCELLATIONS, json={"filter": {"queue": [queue]}})
    told = asked.json()

    assert asked.status_code == 202
    assert asked.headers["Location"] == f"{OPERATIONS}/{told['id']}"
    assert (told["kind"], told["state"], told["filter"]) == ("cancel", "running", {"queue": [queue]})
    work_off(shared)
    done = shared.client().get(asked.headers["Location"]).json()
    assert (done["state"], done["matched"], done["moved"], done["refused"]) == ("done", 3, 3, 0)
    assert done["finished_at"] > done["created_at"]
    assert {read.summary(shared.ledger, SYSTEM, id).state for id in ids} == {State.CANCELLED}


def test_what_was_cancelled_is_sent_through_again_by_a_retry(shared: House):
    tag = unique("tag")
    id = shared.submit(tags=[tag])["id"]
    shared.client().put(f"/api/v1/jobs/{id}/cancellation")

    asked = shared.client().post(RETRIES, json={"filter": {"tag": tag, "state": "failed,cancelled"}})
    work_off(shared)

    assert asked.json()["filter"] == {"state": ["failed", "cancelled"], "tag": [tag]}
    assert read.summary(shared.ledger, SYSTEM, id).state is State.QUEUED


@pytest.mark.parametrize("path", [CANCELLATIONS, RETRIES])
@pytest.mark.parametrize("body", [{}, {"filter": {}}, {"filter": {"state": "", "tag": []}}, {"all": False}])
def test_an_operation_on_everything_wants_to_be_said(shared: House, path: str, body: dict[str, Any]):
    response = shared.client().post(path, json=body)

    assert response.status_code == 422
    assert [fault["path"] for fault in response.json()["errors"]] == ["/filter"]
    assert '"all": true' in response.json()["detail"]


def test_an_operation_on_everything_is_taken_when_it_is_said(own: House):
    ids = [own.submit()["id"] for _ in range(3)]

    assert own.client().post(CANCELLATIONS, json={"all": True}).status_code == 202
    work_off(own)

    assert {read.summary(own.ledger, SYSTEM, id).state for id in ids} == {State.CANCELLED}


def test_a_cursor_that_no_list_gave_out_is_refused(shared: House):
    first, second = (shared.client().post(CANCELLATIONS, json={"filter": {"q": unique("q")}}).json() for _ in range(2))
    response = shared.client().get(f"{OPERATIONS}?after=x")
    page = shared.client().get(OPERATIONS, params={"limit": 1}).json()

    assert (response.status_code, [fault["path"] for fault in response.json()["errors"]]) == (422, ["/after"])
    assert page["operations"][0]["id"] == second["id"]
    after = shared.client().get(OPERATIONS, params={"limit": 1, "after": page["after"]}).json()
    assert after["operations"][0]["id"] == first["id"]


BAD: list[tuple[Any, list[str]]] = [
    ({"filter": {"state": ["lost"]}}, ["/filter/state/0"]),
    ({"filter": {"state": "queued,lost"}}, ["/filter/state/1"]),
    ({"filter": {"colour": "red", "since": "yesterday"}}, ["/filter/since", "/filter/colour"]),
    ({"filter": {"since": 1700000000}}, ["/filter/since"]),
    ({"filter": {"queue": 5}}, ["/filter/queue"]),
    ({"filter": {"queue": [{"a": 1}]}}, ["/filter/queue"]),
    ({"filter": {"tag": ["x\0"]}}, ["/filter/tag/0"]),
    ({"filter": {"task": ["x" * 256]}}, ["/filter/task/0"]),
    ({"filter": {"limit": 5}}, ["/filter/limit"]),
    ({"filter": {"q": ["a"]}}, ["/filter/q"]),
    ({"filter": []}, ["/filter"]),
    ({"filter": None}, ["/filter"]),
    ({"all": "yes"}, ["/all"]),
    ({"all": True, "limit": 3}, ["/limit"]),
    ([], [""]),
]


@pytest.mark.parametrize(("body", "paths"), BAD)
def test_everything_wrong_with_an_operation_is_told_at_once(shared: House, body: Any, paths: list[str]):
    response = shared.client().post(CANCELLATIONS, json=body)

    assert response.status_code == 422, response.text
    assert [fault["path"] for fault in response.json()["errors"]] == paths


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 400),
        (b"\xff", JSON, 400),
        (b"[" * 20_000, JSON, 400),
        (b'{"filter": {"q": "\\ud800"}}', JSON, 422),
        (b'{"all": NaN}', JSON, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"", JSON, 400),
    ],
)
def test_what_is_not_a_body_is_refused(shared: House, body: bytes, headers: dict[str, str], status: int):
    assert shared.client().post(CANCELLATIONS, content=body, headers=headers).status_code == status


def test_operations_are_told_to_who_asked_and_to_who_sees_all(shared: House):
    ann, bob = (shared.client(unique(name), Role.SUBMITTER) for name in ("ann", "bob"))
    mine = [ann.post(CANCELLATIONS, json={"all": True}).json()["id"] for _ in range(3)]

    assert listed(ann, limit=2) == mine[::-1]
    assert listed(bob) == []
    assert bob.get(f"{OPERATIONS}/{mine[0]}").json()["code"] == "operation-not-found"
    assert shared.client(role=Role.VIEWER).get(f"{OPERATIONS}/{mine[0]}").status_code == 200
    work_off(shared)


def listed(client: httpx.Client, **query: Any) -> list[str]:
    """Every operation, page by page."""
    ids: list[str] = []
    after: str | None = ""
    while after is not None:
        page = client.get(OPERATIONS, params={**query, **({"after": after} if after else {})}).json()
        ids += [operation["id"] for operation in page["operations"]]
        after = page["after"]
    return ids


@pytest.mark.parametrize("id", ["nothing", "%00", "x" * 300])
def test_an_operation_that_is_not_there_is_not_found(shared: House, id: str):
    assert shared.client().get(f"{OPERATIONS}/{id}").json()["code"] == "operation-not-found"
