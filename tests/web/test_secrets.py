"""Secrets in arguments reach the worker and nobody else: no list, job, event, header, error or log line has them."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.app import builtins
from pydantic import BaseModel, SecretStr, field_validator

from celeriac import Celeriac
from celeriac.jobs import Message, Submission, new_id
from celeriac.ledger import Ledger, submit
from celeriac.settings import load
from web.house import House, house, unique

app = Celeriac("secrets")
SECRET = "hunter2"


class Account(BaseModel):
    name: str
    pin: SecretStr

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        assert len(name) < 5, f"{name} is too long"
        return name


def measure(*args: Any, **kwargs: Any) -> float:
    raise ValueError(f"{args} {kwargs}")


@app.task(name="login")
def login(user: str, password: str, extra: Any = None) -> None:
    pass


@app.task(name="pay", redact=("card", "iban*"))
def pay(card: str, amount: int = 0, /, *rest: Any, **more: Any) -> None:
    pass


@app.task(name="open_account")
def open_account(account: Account, pins: list[SecretStr] | None = None) -> None:
    pass


@app.task(name="harmless")
def harmless(value: int) -> None:
    pass


@app.task(name="measured", cost=measure)
def measured(token: str) -> None:
    pass


@pytest.fixture(scope="module")
def bank(blank_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(blank_sqlite, tmp_path_factory.mktemp("bank"), app=app) as made:
        yield made


CALLS: list[tuple[str, Any, Any]] = [
    ("login", {"user": "ann", "password": SECRET}, {"user": "ann", "password": "[redacted]"}),
    ("login", ["ann", SECRET], {"user": "ann", "password": "[redacted]"}),
    (
        "login",
        {"user": "ann", "password": "", "extra": [{"X-Api-Key": SECRET, "n": 1.50}, {"acce\u017f": 1}]},
        {"user": "ann", "password": "[redacted]", "extra": [{"X-Api-Key": "[redacted]", "n": 1.50}, {"acce\u017f": 1}]},
    ),
    ("pay", [SECRET, 3], {"card": "[redacted]", "amount": 3}),
    ("pay", {"card": SECRET}, {"card": "[redacted]"}),
    ("pay", [SECRET, 3, 4], {"args": ["[redacted]", 3, 4], "kwargs": {}}),
    ("pay", {"card": "", "iban_from": SECRET, "to": 1}, None),
    ("open_account", {"account": {"name": "ann", "pin": SECRET}}, {"account": {"name": "ann", "pin": "[redacted]"}}),
    ("open_account", [{"name": "ann", "pin": ""}, [SECRET]], None),
]


@pytest.mark.parametrize(("task", "args", "shown"), CALLS, ids=range(len(CALLS)))
def test_a_secret_is_kept_for_the_worker_and_shown_to_nobody(bank: House, task: str, args: Any, shown: Any):
    client, queue = bank.client(), unique("q")
    one = client.post("/api/v1/jobs", json={"task": task, "args": args, "queue": queue})
    typed = client.post(f"/api/v1/tasks/{task}/jobs", json=args, params={"queue": queue})
    many = client.post("/api/v1/jobs/batch", json={"jobs": [{"task": task, "args": args, "queue": queue}]})
    ids = [one.json()["id"], typed.json()["id"], many.json()["jobs"][0]["id"]]

    reads = [client.get(f"/api/v1/jobs/{id}{part}") for id in ids for part in ("", "/events")]
    listed = client.get("/api/v1/jobs", params={"queue": queue})
    assert [SECRET in answer.text for answer in [one, typed, many, *reads, listed]] == [False] * 10
    if shown is not None:
        assert [one.json()["args"], reads[0].json()["args"], listed.json()["jobs"][0]["args"]] == [shown] * 3
    kept = stored(bank.ledger, ids[0])
    assert (SECRET in kept["body"], SECRET in kept["headers"], SECRET in kept["args"]) == (True, False, False)


def test_delay_hides_the_same(blank_sqlite: Path, tmp_path: Path):
    shutil.copy(blank_sqlite, tmp_path / "ledger.db")
    app.__dict__["settings"] = load(home=tmp_path)
    sent = [
        login.delay("ann", SECRET),
        login.delay(user="ann", password=SECRET),
        pay.delay(SECRET, 1, 2, iban_to=SECRET),
        open_account.delay({"name": "ann", "pin": SECRET}, pins=[SECRET]),
        app.send_task("elsewhere", kwargs={"token": SECRET}),
        login.apply_async(("ann", {"password": SECRET}), argsrepr=f"({SECRET})"),
    ]
    try:
        for result in sent:
            kept = stored(app.ledger, result.id)
            assert SECRET in kept["body"]
            assert SECRET not in kept["headers"] + kept["args"]
        assert json.loads(stored(app.ledger, login.delay("ann", "é").id)["headers"])["kwargsrepr"] != "{}"
        assert stored(app.ledger, pay.delay("x", 1, 2).id)["args"] == '{"args":["[redacted]",1,2],"kwargs":{}}'
    finally:
        app.ledger.close()
        app.__dict__.pop("settings")


@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("login", {"user": 1, "password": [SECRET]}),
        ("login", {"user": "ann", "password": SECRET, "extra": "\ud800"}),
        ("open_account", {"account": {"name": SECRET, "pin": SECRET}}),
        ("measured", {"token": SECRET}),
        ("pay", {"card": {SECRET: SECRET}, "amount": SECRET}),
    ],
)
def test_no_error_and_no_log_line_tells_a_secret(
    bank: House, task: str, args: Any, caplog: pytest.LogCaptureFixture
):  # fmt: skip
    body = json.dumps({"task": task, "args": args})
    with caplog.at_level(logging.DEBUG):
        answer = bank.client().post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert SECRET not in answer.text
    assert SECRET not in caplog.text


def test_the_items_of_a_map_are_hidden_when_its_task_has_something_to_hide(blank_sqlite: Path, tmp_path: Path):
    for add in (builtins.add_map_task, builtins.add_starmap_task, builtins.add_chunk_task):
        add(app)  # the apps of these tests are made without Celery's own tasks
    with house(blank_sqlite, tmp_path / "home", app=app) as made:
        app.__dict__["settings"] = made.settings
        try:
            secret = [
                login.starmap([("ann", SECRET)]).apply_async(),
                login.chunks([("ann", SECRET)], 1).apply_async()[0],
                pay.map([SECRET]).apply_async(),
                open_account.map([{"name": "ann", "pin": SECRET}]).apply_async(),
                app.tasks["celery.map"].delay(login.s(), [SECRET]),
            ]
            plain = harmless.map([1, 2]).apply_async()
            odd = [app.tasks["celery.map"].delay(task, [1]) for task in ([], {"task": []}, {"task": "nope"})]
            client = made.client()
            listed = client.get("/api/v1/jobs").text
            reads = [client.get(f"/api/v1/jobs/{job.id}") for job in secret]
            assert SECRET not in listed + "".join(read.text for read in reads)
            assert [read.json()["args"]["it"] for read in reads] == ["[redacted]"] * 5
            assert SECRET not in "".join(stored(made.ledger, job.id)["headers"] for job in secret)
            assert client.get(f"/api/v1/jobs/{plain.id}").json()["args"]["it"] == [1, 2]
            assert [client.get(f"/api/v1/jobs/{job.id}").json()["args"]["it"] for job in odd] == [[1]] * 3
        finally:
            app.ledger.close()
            app.__dict__.pop("settings")


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("elsewhere", [["x", SECRET], {}, {}]),
        ("elsewhere", [[], {"iban": SECRET}, {}]),
        ("celery.starmap", [[], {"task": {"task": "elsewhere"}, "it": [["x", SECRET]]}, {}]),
    ],
)
def test_of_a_task_that_is_not_known_here_only_the_preview_is_shown(bank: House, task: str, body: Any):
    shown = {"hidden": "by who knew it"}
    job = Submission(
        id=new_id(), task=task, queue="q", owner="ann", message=Message("{}", "{}", json.dumps(body)),
        args=json.dumps(shown),
    )  # fmt: skip
    bank.ledger.do(submit, job)

    read = bank.client().get(f"/api/v1/jobs/{job.id}")
    assert read.json()["args"] == shown
    assert SECRET not in read.text


def test_the_names_are_a_setting(blank_sqlite: Path, tmp_path: Path):
    with house(blank_sqlite, tmp_path / "home", app=app, redact=["us?r"]) as open_house:
        job = open_house.submit("login", args={"user": "ann", "password": "x"})

    assert job["args"] == {"user": "[redacted]", "password": "x"}


def stored(ledger: Ledger, id: str) -> dict[str, str]:
    """What the ledger keeps of a job's arguments."""
    with ledger.reading() as connection:
        row = connection.exec_driver_sql(
            "SELECT args, headers, body FROM jobs JOIN payloads ON payloads.job = jobs.key WHERE id = ?", (id,)
        ).one()
    return dict(row._mapping)
