"""POST /tasks/{task}/jobs: each exposed task has an address of its own, described from its signature."""

import json
from collections.abc import Iterator
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import celery
import httpx
import pytest
from pydantic import BaseModel, SecretStr

from celeriac import Celeriac, attach
from celeriac.access import SYSTEM, Permission, Principal, Role
from celeriac.app import Tasks
from celeriac.app.tasks import exposed
from celeriac.errors import UnknownTask
from celeriac.ledger import keys
from celeriac.web.api.requests import JobBody, submission_of
from web.house import JSON, House, house, unique

app = Celeriac("typed")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    city: str = "Berlin"


class Person(BaseModel):
    name: str
    address: Address


@app.task(name="mail.send")
def send(to: Person, subject: str, colour: Colour = Colour.RED, copies: int = 1, *, on: date | None = None) -> None:
    """Send a letter.

    By post, within a day.

    Args:
        to: Who gets it,
            at home.
        subject (str): What it is about.
        copies: How many.
    """


@app.task(name="mail.count")
def count(to: Person, kind: Literal["a", "b"] = "a") -> int:
    """Count letters.

    :param to: Whose they are.
    :param str kind: Of which kind.
    """
    return 0


@app.task(name="odd names/täsk")
def odd(x: Any = None) -> None:
    pass


@app.task(name="open")
def opened(*numbers: int, **rest: int) -> None:
    pass


@app.task(name="by_place")
def by_place(x: int, y: int = 2, /, z: int = 3) -> None:
    pass


@app.task(name="strange")
def strange(call: "Undefined", thing: object = object()) -> None:  # type: ignore[name-defined] # noqa: F821
    pass


@app.task(name="hidden", expose=False)
def hidden() -> None:
    pass


@app.task(name="login", redact=("card",))
def login(user: str, pin: SecretStr, card: str = "4111", api_key: str = "hunter2") -> None:
    pass


@pytest.fixture(scope="module")
def office(blank_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(blank_sqlite, tmp_path_factory.mktemp("office"), app=app) as made:
        yield made


def post(office: House, task: str, body: Any = None, /, **query: Any) -> httpx.Response:
    content = body if isinstance(body, (str, bytes)) else json.dumps({} if body is None else body)
    return office.client().post(f"/api/v1/tasks/{task}/jobs", content=content, params=query, headers=JSON)


def paths(response: httpx.Response) -> set[str]:
    return {error["path"] for error in response.json()["errors"]}


ANNA = {"name": "Anna", "address": {"street": "Elm 1"}}


def test_the_body_is_the_tasks_own_arguments(office: House):
    response = post(office, "mail.send", {"to": ANNA, "subject": "x", "on": "2030-01-31"})
    job = response.json()

    assert (response.status_code, response.headers["Location"]) == (202, f"/api/v1/jobs/{job['id']}")
    assert (job["task"], job["args"]["subject"], job["args"]["to"]) == ("mail.send", "x", ANNA)
    assert office.client().get(f"/api/v1/jobs/{job['id']}").json() == job


def test_the_rest_stands_in_the_query(office: House):
    key = unique("key")
    job = post(
        office, "open", {}, queue="other", priority=3, delay="1.5", expires_at="2100-01-01T00:00:00+02:00",
        max_attempts=4, tags="a,b", unique_key=key, unique_window="60", time_limit=10, soft_time_limit="9.5",
    ).json()  # fmt: skip

    assert (job["queue"], job["priority"], job["state"], job["max_attempts"]) == ("other", 3, "scheduled", 4)
    assert (job["tags"], job["expires_at"]) == (["a", "b"], "2099-12-31T22:00:00Z")
    again = post(office, "open", {}, unique_key=key)
    assert (again.json()["id"], again.headers["Unique-Replayed"]) == (job["id"], "true")


def test_everything_wrong_is_told_at_once(office: House):
    response = post(
        office, "mail.send", {"to": {"name": 1}, "colour": "green", "hue": 1}, priority="high", delay="nan", hue=2,
        tags="x," * 30, unique_window=3, time_limit="1_0", max_attempts="1.5",
    )  # fmt: skip

    assert response.status_code == 422
    assert paths(response) == {
        "/to/name", "/to/address", "/subject", "/colour", "/hue", "/priority", "/delay", "/tags", "/unique_window",
        "/time_limit", "/max_attempts",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ("", 202, None),
        ("{}", 202, None),
        ('{"x": [NaN]}', 400, None),
        ("{", 400, None),
        (b'{"x": "\xff"}', 400, None),
        ('{"x": "\\ud800"}', 422, "/x"),
        ("3", 422, ""),
        ("[1, 2]", 422, "/1"),
        ("[1]", 202, None),
    ],
)
def test_a_body_is_json_or_nothing(office: House, body: str | bytes, status: int, path: str | None):
    response = post(office, "odd names%2Ft%C3%A4sk", body)

    assert response.status_code == status, response.text
    assert path is None or paths(response) == {path}


def test_arguments_by_place_only_are_given_by_name(office: House):
    assert post(office, "by_place", {"x": 1, "z": 4}).json()["args"] == {"x": 1, "z": 4}
    job = post(office, "by_place", {"x": 1, "y": 5, "z": 4}).json()
    message = office.client().get(f"/api/v1/jobs/{job['id']}").json()
    assert message["args"] == {"x": 1, "y": 5, "z": 4}
    with office.ledger.reading() as connection:
        [body] = connection.exec_driver_sql("SELECT body FROM payloads ORDER BY job DESC LIMIT 1").scalars()
    assert json.loads(body)[:2] == [[1, 5], {"z": 4}]
    assert paths(post(office, "by_place", {"y": 1})) == {"/x"}


def test_a_key_belongs_to_address_query_and_body(office: House):
    headers = {**JSON, "Idempotency-Key": unique("key")}

    def ask(address: str) -> httpx.Response:
        return office.client().post(f"/api/v1/tasks/{address}", content="{}", headers=headers)

    first, again, other = ask("open/jobs"), ask("open/jobs"), ask("open/jobs?priority=1")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    assert other.json()["code"] == "idempotency-mismatch"


@pytest.mark.parametrize("task", ["hidden", "nothing", "celery.backend_cleanup"])
def test_what_is_not_exposed_is_not_there(office: House, task: str):
    response = post(office, task)

    assert (response.status_code, response.json()["code"]) == (404, "unknown-task")
    assert "hidden" not in response.json()["detail"].replace("'hidden'", "")
    assert office.client().post("/api/v1/jobs", json={"task": task}).status_code == 422
    assert task not in {one["name"] for one in office.client().get("/api/v1/tasks").json()["tasks"]}


def work() -> None:
    pass


@pytest.mark.parametrize(("body", "status"), [(b"", 202), (b"{}", 415)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_without_a_body_needs_no_content_type(office: House, body: bytes, status: int, chunked: bool):
    content = iter([body]) if chunked else body
    response = office.client().post("/api/v1/tasks/open/jobs", content=content)

    assert response.status_code == status, response.text


def refused(app: Any, task: str, principal: Principal = SYSTEM) -> str:
    with pytest.raises(UnknownTask) as told:
        submission_of(Tasks(app, ()), principal, JobBody(task), [])
    return told.value.detail


def test_why_an_existing_task_is_not_there_is_told_to_who_may_read_the_system():
    attached, observed = celery.Celery("attached"), celery.Celery("observed", broker="memory://")
    attached.task(name="mail.send", shared=False)(work)
    attach(attached, mode="own")
    attach(observed)

    assert 'Attach the app with expose=("mail.send",)' in refused(attached, "mail.send")
    assert "made with expose=False" in refused(app, "hidden")
    assert "only observed: its own broker queues its jobs" in refused(observed, "add")
    assert refused(app, "nope").startswith("There is no task 'nope'. Known tasks: by_place, ")
    stranger = Principal("x", frozenset({Permission.JOBS_SUBMIT}))
    assert {refused(app, name, stranger) for name in ("hidden", "nope")} == {
        "There is no task 'hidden'.", "There is no task 'nope'."
    }  # fmt: skip


def test_an_attached_app_exposes_what_it_lists():
    attached = celery.Celery("attached")
    for name in ("mail.send", "mail.count", "other", "mail.hidden"):
        attached.task(name=name, expose=name != "mail.hidden")(work)
    attached.finalize()
    names = ["mail.send", "mail.count", "mail.hidden", "other", "celery.accumulate"]

    assert not any(exposed(attached, name) for name in names)
    attached.conf.celeriac_expose = ["mail.*", "celery.*"]
    assert [name for name in names if exposed(attached, name)] == ["mail.send", "mail.count"]


# Tokens for some tasks only


@pytest.fixture(scope="module")
def mailer(office: House) -> Iterator[httpx.Client]:
    """A client whose token is for the tasks `mail.*`."""
    secret = keys.create_token(office.ledger, "mailer", "ann", Role.SUBMITTER, tasks=["mail.*"])
    with httpx.Client(base_url=office.url, headers={"Authorization": f"Bearer {secret}"}, trust_env=False) as client:
        yield client


def test_a_token_submits_the_tasks_it_is_for_and_no_others_on_any_route(mailer: httpx.Client):
    good = {"to": ANNA, "subject": "x"}
    assert mailer.post("/api/v1/tasks/mail.send/jobs", json=good).status_code == 202
    assert mailer.post("/api/v1/jobs", json={"task": "mail.send", "args": good}).status_code == 202

    refused = [
        (mailer.post("/api/v1/tasks/open/jobs", json={"x": "wrong"}), "/task"),
        (mailer.post("/api/v1/jobs", json={"task": "open", "hue": 1}), "/task"),
        (mailer.post("/api/v1/jobs", json={"task": "nothing"}), "/task"),
        (
            mailer.post("/api/v1/jobs/batch", json={"jobs": [{"task": "mail.send", "args": good}, {"task": "open"}]}),
            "/jobs/1/task",
        ),
    ]
    for response, path in refused:
        assert (response.status_code, response.json()["code"]) == (403, "task-not-allowed"), response.text
        assert "mail.*" in response.json()["detail"]
        assert paths(response) == {path}


# The OpenAPI document


def document(client: httpx.Client) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/openapi.json").json()
    return told


def test_each_task_has_a_documented_address_for_who_may_see_the_tasks(office: House, mailer: httpx.Client):
    mine = {path for path in document(office.client())["paths"] if path.startswith("/api/v1/tasks/")}
    assert {"/api/v1/tasks/mail.send/jobs", "/api/v1/tasks/odd%20names%2Ft%C3%A4sk/jobs"} < mine
    assert "/api/v1/tasks/hidden/jobs" not in mine

    strangers = document(office.client(role=None))
    assert [path for path in strangers["paths"] if path.startswith("/api/v1/tasks/")] == ["/api/v1/tasks/{task}/jobs"]
    assert "mail.send" not in json.dumps(strangers)
    theirs = {path for path in document(mailer)["paths"] if path.startswith("/api/v1/tasks/")}
    assert theirs == {"/api/v1/tasks/{task}/jobs", "/api/v1/tasks/mail.send/jobs", "/api/v1/tasks/mail.count/jobs"}


def test_an_address_is_typed_from_the_signature_and_described_from_the_docstring(office: House):
    told = document(office.client())
    operation = told["paths"]["/api/v1/tasks/mail.send/jobs"]["post"]
    schema = told["components"]["schemas"]["mail.send.arguments"]
    fields = schema["properties"]

    assert (operation["operationId"], operation["summary"]) == ("submit_mail.send", "Send a letter.")
    assert operation["description"].startswith("By post, within a day.")
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/mail.send.arguments"
    }
    assert {given["name"] for given in operation["parameters"]} >= {"Idempotency-Key", "queue", "unique_key", "delay"}
    assert (schema["required"], schema["additionalProperties"]) == (["to", "subject"], False)
    assert fields["to"]["$ref"] == "#/components/schemas/mail.send.Person"
    assert fields["to"]["description"] == "Who gets it, at home."
    assert (fields["subject"]["description"], fields["copies"]["default"]) == ("What it is about.", 1)
    assert fields["colour"] == {"$ref": "#/components/schemas/mail.send.Colour", "default": "red"}
    person = told["components"]["schemas"]["mail.send.Person"]
    assert person["properties"]["address"] == {"$ref": "#/components/schemas/mail.send.Address"}
    kinds = told["components"]["schemas"]["mail.count.arguments"]["properties"]
    assert (kinds["to"]["description"], kinds["kind"]["description"]) == ("Whose they are.", "Of which kind.")


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own(office: House):
    told = document(office.client())
    text = json.dumps(told)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert names <= set(told["components"]["schemas"])
    assert "$defs" not in text
    ids = [operation["operationId"] for methods in told["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_the_page_of_documentation_shows_the_tasks_too(office: House):
    text = office.client().get("/docs").text

    assert "<code>/api/v1/tasks/mail.send/jobs</code>" in text
    assert "Who gets it, at home." in text


def test_defaults_of_secrets_are_told_nowhere(office: House):
    for path in ("/openapi.json", "/docs", "/api/v1/tasks"):
        text = office.client().get(path).text
        assert "hunter2" not in text
        assert "4111" not in text
