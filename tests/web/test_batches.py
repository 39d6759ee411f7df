"""POST /jobs/batch and GET /batches/{id}: all or nothing, and how far it is."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from ledger.plans import caught

from celeriac.access import Role
from web.house import JSON, House, unique

BATCH = "/api/v1/jobs/batch"


def post(house: House, *jobs: Any, owner: str = "ann", **headers: str) -> httpx.Response:
    return house.client(owner).post(BATCH, json={"jobs": list(jobs)}, headers=headers)


def paths(response: httpx.Response) -> set[str]:
    return {error["path"] for error in response.json()["errors"]}


def test_a_batch_is_answered_with_itself_and_its_jobs_in_order(shared: House):
    response = post(
        shared,
        {"task": "add", "args": {"x": 1}},
        {"task": "echo", "delay": 60},
        {"task": "measured", "args": ["x"], "priority": 3},
    )
    batch, jobs = response.json()["batch"], response.json()["jobs"]

    assert (response.status_code, response.headers["Location"]) == (202, f"/api/v1/batches/{batch['id']}")
    assert [job["task"] for job in jobs] == ["add", "echo", "measured"]
    assert {job["batch"] for job in jobs} == {batch["id"]}
    assert batch == {
        "id": batch["id"], "owner": "ann", "size": 3, "counts": {"queued": 2, "scheduled": 1}, "done": 0,
        "progress": 0.0, "finished": False, "created_at": batch["created_at"],
    }  # fmt: skip


def test_the_answer_to_a_batch_is_what_reads_show(shared: House):
    answer = post(shared, {"task": "add", "args": [1]}, {"task": "listed", "args": [1, "two"]}).json()
    client = shared.client()

    assert client.get(f"/api/v1/batches/{answer['batch']['id']}").json() == answer["batch"]
    assert [client.get(f"/api/v1/jobs/{job['id']}").json() for job in answer["jobs"]] == answer["jobs"]


def test_progress_follows_the_jobs(shared: House):
    queue = unique("batch")
    id = post(shared, *({"task": "echo", "queue": queue} for _ in range(4))).json()["batch"]["id"]

    def seen() -> tuple[float, bool, int]:
        batch = shared.client().get(f"/api/v1/batches/{id}").json()
        return batch["progress"], batch["finished"], batch["done"]

    assert seen() == (0.0, False, 0)
    shared.end(queue)
    assert seen() == (0.25, False, 1)
    for _ in range(3):
        shared.end(queue)
    assert seen() == (1.0, True, 4)


def test_everything_wrong_with_any_job_is_told_at_once_and_nothing_is_written(shared: House):
    queue = unique("none")
    response = post(
        shared,
        {"task": "echo", "queue": queue},
        {"task": "add", "args": {"x": "one", "z": 1}},
        {"task": "nope"},
        {"task": "echo", "priority": 77, "hue": 1, "unique": {"key": "", "windo": 1}},
        {"task": "echo", "run_at": "soon"},
        7,
    )

    assert (response.status_code, response.json()["code"]) == (422, "invalid-request")
    assert {
        "/jobs/1/args/x", "/jobs/1/args/z", "/jobs/2/task", "/jobs/3/priority", "/jobs/3/hue", "/jobs/4/run_at",
        "/jobs/5",
    } <= paths(response)  # fmt: skip
    assert not any(path.startswith("/jobs/0") for path in paths(response))
    assert shared.client().get("/api/v1/jobs", params={"queue": queue}).json()["jobs"] == []


def test_one_bad_job_among_a_thousand_refuses_them_all(shared: House):
    queue = unique("none")
    jobs: list[Any] = [{"task": "add", "args": [1], "queue": queue} for _ in range(1000)]
    jobs[777]["args"] = ["one"]
    response = post(shared, *jobs)

    assert (response.status_code, paths(response)) == (422, {"/jobs/777/args/x"})
    assert shared.client().get("/api/v1/jobs", params={"queue": queue}).json()["jobs"] == []


def test_of_very_many_faults_a_hundred_are_told(shared: House):
    response = post(shared, *({"task": "add", "args": {}} for _ in range(1000)))

    errors = response.json()["errors"]
    assert len(errors) == 101
    assert (errors[99]["path"], errors[100]["path"]) == ("/jobs/99/args/x", "")
    assert "more than 100" in errors[100]["message"]


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ("[]", 422, ""),
        ("{}", 422, "/jobs"),
        ('{"jobs": []}', 422, "/jobs"),
        ('{"jobs": {}}', 422, "/jobs"),
        ('{"jobs": null}', 422, "/jobs"),
        ('{"jobs": [{"task": "echo"}], "priority": 1}', 422, "/priority"),
        ('{"jobs": [null]}', 422, "/jobs/0"),
        ('{"jobs": [{"task": "echo", "args": {"value": "\\ud800"}}]}', 422, "/jobs/0/args/value"),
        (json.dumps({"jobs": [{"task": "echo"}] * 1001}), 422, "/jobs"),
        ('{"jobs": [{"task": "echo", "args": {"value": NaN}}]}', 400, None),
        ('{"jobs": [{"task": "echo"}', 400, None),
        (b'{"jobs": [{"task": "echo", "args": ["\xff"]}]}', 400, None),
        ('{"jobs": [{"task": "echo", "args": ' + "[" * 10_000 + "]" * 10_000 + "}]}", 400, None),
    ],
    ids=range(13),
)
def test_a_wrong_batch_is_refused_and_told_why(shared: House, body: str, status: int, place: str | None):
    response = shared.client().post(BATCH, content=body, headers=JSON)

    assert response.status_code == status
    if place is not None:
        assert paths(response) == {place}


def test_a_thousand_jobs_are_accepted(shared: House):
    response = post(shared, *({"task": "add", "args": [n], "tags": ["many"]} for n in range(1000)))

    jobs = response.json()["jobs"]
    assert [job["args"]["x"] for job in jobs] == list(range(1000))
    assert len({job["id"] for job in jobs}) == response.json()["batch"]["size"] == 1000


def test_batches_and_single_jobs_at_the_same_time_are_all_there(shared: House):
    queue = unique("mixed")

    def one(n: int) -> int:
        job = {"task": "add", "args": [n], "queue": queue}
        return (shared.client().post("/api/v1/jobs", json=job) if n % 2 else post(shared, *[job] * 10)).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(40))) == {202}
    assert shared.client().get(f"/api/v1/queues/{queue}").json()["counts"] == {"queued": 220}


def test_a_batch_shows_to_its_owner_and_who_may_read_all(shared: House):
    id = post(shared, {"task": "echo"}).json()["batch"]["id"]
    look = f"/api/v1/batches/{id}"

    assert shared.client("bob", Role.SUBMITTER).get(look).json()["code"] == "batch-not-found"
    assert shared.client("eve", Role.VIEWER).get(look).json()["owner"] == "ann"
    assert shared.client().get("/api/v1/batches/nothing").status_code == 404
    assert shared.client().get("/api/v1/batches/" + "x" * 300).status_code == 404


def test_a_repeated_key_answers_the_same_batch(shared: House):
    key = {"Idempotency-Key": unique("key")}
    first = post(shared, {"task": "add", "args": [1]}, {"task": "echo"}, **key)
    again = post(shared, {"task": "add", "args": [1]}, {"task": "echo"}, **key)

    assert (again.status_code, again.json(), again.headers["Location"]) == (
        202, first.json(), first.headers["Location"],
    )  # fmt: skip
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")


def test_a_repeated_batch_is_answered_with_previews(shared: House):
    key, long = {"Idempotency-Key": unique("key")}, "x" * 5000
    jobs = [{"task": "echo", "args": {"value": long}}] * 3
    first, again = post(shared, *jobs, **key).json(), post(shared, *jobs, **key).json()

    assert [job["args"] for job in first["jobs"]] == [{"value": long}] * 3
    assert [job["id"] for job in again["jobs"]] == [job["id"] for job in first["jobs"]]
    assert all(len(json.dumps(job["args"])) <= 1024 for job in again["jobs"])


def test_unique_jobs_that_are_there_are_answered_with_previews_of_one_query(shared: House):
    keys, long = [{"key": unique("unique")} for _ in range(3)], "x" * 5000
    there = [shared.submit("echo", unique=key, args={"value": long})["id"] for key in keys]
    with caught() as statements:
        answer = post(shared, *({"task": "echo", "unique": key} for key in reversed(keys))).json()

    assert [job["id"] for job in answer["jobs"]] == there[::-1]
    assert all(len(json.dumps(job["args"])) <= 1024 for job in answer["jobs"])
    assert len([text for text, _ in statements if "payloads" in text]) == 0
    assert len([text for text, _ in statements if text.startswith("SELECT jobs.key")]) == 1


def test_a_repeated_key_with_another_batch_is_refused(shared: House):
    key = {"Idempotency-Key": unique("key")}
    post(shared, {"task": "echo"}, **key)

    assert post(shared, {"task": "echo"}, {"task": "echo"}, **key).json()["code"] == "idempotency-mismatch"
    assert paths(post(shared, {"task": "echo"}, **{"Idempotency-Key": "a b"})) == {"Idempotency-Key"}


def test_a_unique_job_stands_once_in_a_batch(shared: House):
    key = {"key": unique("unique")}
    there = shared.submit("echo", unique=key)
    answer = post(
        shared, {"task": "echo", "unique": key}, {"task": "echo"}, {"task": "echo", "unique": key}
    ).json()  # fmt: skip

    assert [job["id"] == there["id"] for job in answer["jobs"]] == [True, False, True]
    assert answer["batch"]["size"] == 1
