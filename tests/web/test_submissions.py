"""POST /jobs: what is accepted is safe, and what is not is told completely."""

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from celeriac.web.api import bodies
from web.house import JSON, House, house, unique

JOBS = "/api/v1/jobs"


def post(house: House, body: str | bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    return house.client().post(JOBS, content=body, headers={**JSON, **headers})


def paths(response: httpx.Response) -> list[str]:
    return [error["path"] for error in response.json()["errors"]]


def test_an_accepted_job_is_answered_with_itself_and_its_place(shared: House):
    response = post(shared, '{"task": "add", "args": {"x": 1, "y": 2}, "tags": ["t", "t"], "priority": 3}')

    job = response.json()
    assert (response.status_code, response.headers["Location"]) == (202, f"{JOBS}/{job['id']}")
    assert list(job) == [
        "id", "task", "state", "queue", "priority", "args", "result", "error", "progress", "attempt", "max_attempts",
        "owner", "tags", "cost", "created_at", "run_at", "expires_at", "started_at", "finished_at", "worker", "parent",
        "root", "group", "schedule", "batch", "observed", "number",
    ]  # fmt: skip
    assert (job["args"], job["tags"], job["owner"], job["number"]) == ({"x": 1, "y": 2}, ["t"], "ann", 1)


@pytest.mark.parametrize(
    "body",
    [
        {"task": "echo"},
        {"task": "echo", "args": [{"a": [1, None, "é"]}]},
        {"task": "add", "args": [1, 2], "delay": 3600, "tags": ["b", "a"], "queue": "elsewhere", "max_attempts": 4},
        {"task": "measured", "args": {"text": "x" * 50}, "expires_at": "2100-01-01T00:00:00+02:00"},
        {"task": "listed", "args": [1, "two", [3]]},
        {"task": "echo", "args": {"value": "x" * 100_000}},
    ],
)
def test_the_answer_to_a_submit_is_what_a_read_shows(shared: House, body: dict[str, Any]):
    submitted = shared.client().post(JOBS, json=body).json()

    assert shared.client().get(f"{JOBS}/{submitted['id']}").json() == submitted


def test_arguments_in_an_array_are_shown_by_name(shared: House):
    assert shared.submit("add", args=[1, 2])["args"] == {"x": 1, "y": 2}


def test_the_cost_picks_the_queue(shared: House):
    assert [shared.submit("measured", args=["x" * n])["queue"] for n in (10, 11)] == ["small", "large"]


def test_a_delayed_job_is_scheduled(shared: House):
    before = datetime.now(UTC)
    job = shared.submit(delay=3600)

    assert job["state"] == "scheduled"
    assert datetime.fromisoformat(job["run_at"]) >= before + timedelta(hours=1)


def test_a_time_a_moment_ago_means_now(shared: House):
    assert shared.submit(run_at=(datetime.now(UTC) - timedelta(seconds=5)).isoformat())["state"] == "queued"


def test_numbers_keep_every_digit(shared: House):
    value = "[123456789012345678901234567890, 0.1000000000000000055511151231257827, 1E2]"
    job = post(shared, f'{{"task": "echo", "args": {{"value": {value}}}}}').json()

    assert value.encode() in shared.client().get(f"{JOBS}/{job['id']}").content
    assert shared.client().get(JOBS, params={"q": job["id"]}).json()["jobs"][0]["args"]["value"][1] == 0.1


def test_of_a_name_given_twice_the_last_counts_everywhere(shared: House):
    job = post(shared, '{"task": "add", "args": {"x": 1, "x": 2}, "queue": "a", "queue": "b"}').json()
    listed = shared.client().get(JOBS, params={"q": job["id"]}).json()["jobs"][0]

    assert (job["args"], listed["args"], job["queue"]) == ({"x": 2}, {"x": 2}, "b")


def test_any_character_survives(shared: House):
    value = "\0 \x7f \u2028 é 𝄞 \ufffe " + '"\\'

    job = shared.submit(args={"value": value})
    assert shared.client().get(f"{JOBS}/{job['id']}").json()["args"]["value"] == value


def test_two_texts_of_a_million_characters_are_accepted(shared: House):
    value = ["é" * 1_000_000, "x" * 1_000_000]

    job = shared.submit(args={"value": value}, queue=unique("big"))
    assert shared.client().get(f"{JOBS}/{job['id']}").json()["args"]["value"] == value
    [listed] = shared.client().get(JOBS, params={"queue": job["queue"]}).json()["jobs"]
    assert len(json.dumps(listed["args"])) <= 1024


BAD = [
    # what is not JSON
    ("", 400, "not-json", "column 1"),
    ("{", 400, "not-json", "column 2"),
    ('{"task": "echo",}', 400, "not-json", "line 1"),
    ('{"task": "echo", "args": {"value": NaN}}', 400, "not-json", "NaN"),
    ('{"task": "echo", "args": {"value": -Infinity}}', 400, "not-json", "-Infinity"),
    ('{"task": "echo"} x', 400, "not-json", "column 18"),
    (b'{"task": "echo", "args": {"value": "\xff"}}', 400, "not-json", "byte 36"),
    (b'{"task": "listed", "args": ["\xed\xa0\x80"]}', 400, "not-json", "byte 29"),
    ('{"task": "echo", "args": {"value": ' + "[" * 100_000 + "]" * 100_000 + "}}", 400, "not-json", "deeply"),
    ("\ufeff{}", 400, "not-json", ""),
    # JSON, but no request
    ("[]", 422, "invalid-request", ""),
    ("null", 422, "invalid-request", ""),
    ('"echo"', 422, "invalid-request", ""),
    ("{}", 422, "invalid-request", "/task"),
    ('{"task": null}', 422, "invalid-request", "/task"),
    ('{"task": 7}', 422, "invalid-request", "/task"),
    ('{"task": ""}', 422, "unknown-task", "/task"),
    ('{"task": "nope"}', 422, "unknown-task", "/task"),
    ('{"task": "celery.backend_cleanup"}', 422, "unknown-task", "/task"),
    ('{"task": "echo", "colour": 1}', 422, "invalid-request", "/colour"),
    # arguments
    ('{"task": "add", "args": {}}', 422, "invalid-arguments", "/args/x"),
    ('{"task": "add", "args": {"x": "1"}}', 422, "invalid-arguments", "/args/x"),
    ('{"task": "add", "args": {"x": 1, "z": 1}}', 422, "invalid-arguments", "/args/z"),
    ('{"task": "add", "args": [1, 2, 3]}', 422, "invalid-arguments", "/args/2"),
    ('{"task": "add", "args": 3}', 422, "invalid-arguments", "/args"),
    ('{"task": "add", "args": null}', 422, "invalid-arguments", "/args"),
    ('{"task": "echo", "args": {"value": 1e999}}', 422, "invalid-arguments", "/args"),
    ('{"task": "echo", "args": {"value": "\\ud800"}}', 422, "invalid-request", "/args/value"),
    ('{"task": "echo", "args": {"value": [0, {"k\\udfff": 1}]}}', 422, "invalid-request", "/args/value/1"),
    ('{"task": "listed", "args": ["\\udc00\\ud800"]}', 422, "invalid-request", "/args/0"),
    # values
    ('{"task": "echo", "priority": 10}', 422, "invalid-request", "/priority"),
    ('{"task": "echo", "priority": -1}', 422, "invalid-request", "/priority"),
    ('{"task": "echo", "priority": 1.5}', 422, "invalid-request", "/priority"),
    ('{"task": "echo", "priority": true}', 422, "invalid-request", "/priority"),
    ('{"task": "echo", "max_attempts": 0}', 422, "invalid-request", "/max_attempts"),
    ('{"task": "echo", "queue": ""}', 422, "invalid-request", "/queue"),
    ('{"task": "echo", "queue": "a\\u0000b"}', 422, "invalid-request", "/queue"),
    ('{"task": "echo", "tags": "t"}', 422, "invalid-request", "/tags"),
    ('{"task": "echo", "tags": ["a", 1]}', 422, "invalid-request", "/tags/1"),
    ('{"task": "echo", "tags": ["a,b"]}', 422, "invalid-request", "/tags/0"),
    (json.dumps({"task": "echo", "tags": ["x" * 65]}), 422, "invalid-request", "/tags/0"),
    (json.dumps({"task": "echo", "tags": ["x"] * 21}), 422, "invalid-request", "/tags"),
    ('{"task": "echo", "delay": -1}', 422, "invalid-request", "/delay"),
    ('{"task": "echo", "delay": 1e300}', 422, "invalid-request", "/delay"),
    ('{"task": "echo", "delay": "1"}', 422, "invalid-request", "/delay"),
    ('{"task": "echo", "run_at": "soon"}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "run_at": 1700000000}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "run_at": "2090-01-01T00:00:00"}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "run_at": "2001-01-01T00:00:00Z"}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "run_at": "9999-12-31T23:59:59-23:59"}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "run_at": "0001-01-01T00:00:00+23:59"}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "run_at": "2090-01-01T00:00:00Z", "delay": 1}', 422, "invalid-request", "/delay"),
    ('{"task": "echo", "expires_at": "2001-01-01T00:00:00Z"}', 422, "invalid-request", "/expires_at"),
    ('{"task": "echo", "delay": 60, "expires_at": "{now}"}', 422, "invalid-request", "/expires_at"),
    ('{"task": "echo", "delay": 3155760001}', 422, "invalid-request", "/delay"),
    ('{"task": "echo", "run_at": "2199-01-01T00:00:00Z"}', 422, "invalid-request", "/run_at"),
    ('{"task": "echo", "priority": 9223372036854775808}', 422, "invalid-request", "/priority"),
    ('{"task": "echo", "time_limit": 0}', 422, "invalid-request", "/time_limit"),
    ('{"task": "echo", "time_limit": -1.5}', 422, "invalid-request", "/time_limit"),
    ('{"task": "echo", "time_limit": "5"}', 422, "invalid-request", "/time_limit"),
    ('{"task": "echo", "time_limit": true}', 422, "invalid-request", "/time_limit"),
    ('{"task": "echo", "soft_time_limit": 0}', 422, "invalid-request", "/soft_time_limit"),
    ('{"task": "echo", "soft_time_limit": 1e300}', 422, "invalid-request", "/soft_time_limit"),
    ('{"task": "echo", "time_limit": 5, "soft_time_limit": 6}', 422, "invalid-request", "/soft_time_limit"),
    ('{"task": "limited", "soft_time_limit": 61}', 422, "invalid-arguments", "/soft_time_limit"),
    ('{"task": "echo", "unique": "k"}', 422, "invalid-request", "/unique"),
    ('{"task": "echo", "unique": {}}', 422, "invalid-request", "/unique/key"),
    ('{"task": "echo", "unique": {"key": ""}}', 422, "invalid-request", "/unique/key"),
    ('{"task": "echo", "unique": {"key": "a\\u0000"}}', 422, "invalid-request", "/unique/key"),
    ('{"task": "echo", "unique": {"key": "\\ud800"}}', 422, "invalid-request", "/unique/key"),
    ('{"task": "echo", "unique": {"key": "k", "window": -1}}', 422, "invalid-request", "/unique/window"),
    ('{"task": "echo", "unique": {"key": "k", "window": null}}', 422, "invalid-request", "/unique/window"),
    ('{"task": "echo", "unique": {"key": "k", "until": 1}}', 422, "invalid-request", "/unique/until"),
    ('{"task": "echo", "delay": 1e999}', 422, "invalid-request", "/delay"),
    ('{"task": "echo", "args": {"value": 1' + "0" * 5000 + "}}", 422, "invalid-arguments", "/args"),
    ('{"task": "echo", "args": ' + '{"value":' * 10_000 + "1" + "}" * 10_000 + "}", 400, "not-json", "deeply"),
]


@pytest.mark.parametrize(("body", "status", "code", "place"), BAD, ids=[str(bad[0])[:50] or "empty" for bad in BAD])
def test_a_wrong_request_is_refused_and_told_why(shared: House, body: str | bytes, status: int, code: str, place: str):
    if isinstance(body, str):
        soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        body = body.replace("{now}", soon)
    response = post(shared, body)
    problem = response.json()

    assert (response.status_code, problem["code"]) == (status, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    if status == 400:
        assert place in problem["detail"]
    else:
        assert place in paths(response)


SENTENCES = [
    ('{"task": "echo", "unique": {"until": 1}}', ["/unique/key: is missing",
     "/unique/until: is not a field here; the fields are key, window"]),
    ('{"task": "echo", "unique": {"key": 5, "window": -1}}',
     ["/unique/key: must be a text, not an integer", "/unique/window: must be a number at least 0"]),
    ('{"task": "echo", "time_limit": 5, "soft_time_limit": 6}',
     ["/soft_time_limit: is more than time_limit, 5 s, at which the task is killed"]),
    ('{"task": "add", "args": {"x": "\\ud800"}}',
     ["/args/x: holds half of a surrogate pair (such as \\ud800), which is not a character"]),
    ('{"task": "echo", "args": {"value": ' + "[" * 500 + "]" * 500 + "}}", ["/args: is nested too deeply"]),
    ('{"task": "echo", "args": {"value": 1e999}}', ["/args: holds a number that is too large"]),
    ('{"task": "listed", "args": [1' + "0" * 5000 + "]}", ["/args: holds a number that is too large"]),
    ('{"task": "echo", "delay": -1e999}', ["/delay: is a number that is too large"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "told"), SENTENCES, ids=[body[:50] for body, _ in SENTENCES])
def test_a_fault_is_told_once_and_in_a_sentence(shared: House, body: str, told: list[str]):
    assert [f"{fault['path']}: {fault['message']}" for fault in post(shared, body).json()["errors"]] == told


def test_a_number_of_too_many_digits_is_a_sentence(shared: House):
    response = post(shared, '{"task": "echo", "hue": 1' + "0" * 5000 + "}")

    assert (response.status_code, response.json()["code"]) == (400, "not-json")
    assert response.json()["detail"].endswith("a number in it has too many digits.")


@pytest.mark.parametrize("route", ["/jobs", "/jobs/batch", "/tasks/echo/jobs"])
def test_two_idempotency_keys_are_refused(shared: House, route: str):
    headers = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    response = shared.client().post(f"/api/v1{route}", content="{}", headers=headers)

    assert (response.status_code, paths(response)) == (422, ["Idempotency-Key"])


def test_everything_wrong_is_told_at_once(shared: House):
    response = post(
        shared,
        '{"task": "add", "args": {"x": "one", "z": 3}, "priority": 99, "tags": ["", 5],'
        ' "run_at": "x", "delay": 1, "hue": 2}',
        **{"Idempotency-Key": "two words"},
    )

    assert response.status_code == 422
    assert {"/args/x", "/args/z", "/priority", "/run_at", "/delay", "/hue", "Idempotency-Key"} <= set(paths(response))


def test_wrong_missing_and_extra_arguments_are_told_at_once(shared: House):
    response = post(shared, '{"task": "add", "args": {"y": "two", "z": 3}}')

    assert sorted(paths(response)) == ["/args/x", "/args/y", "/args/z"]


@pytest.mark.parametrize("declared", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_that_is_not_declared_as_json_is_refused(shared: House, declared: str):
    response = shared.client().post(JOBS, content='{"task": "echo"}', headers={"Content-Type": declared})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity, br"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": 'application/json;charset="latin-1"'},
    ],
)
def test_a_body_that_is_compressed_or_not_utf_8_is_refused(shared: House, headers: dict[str, str]):
    response = post(shared, '{"task": "echo"}', **headers)

    [(name, value)] = headers.items()
    assert (response.status_code, response.json()["code"]) == (415, "unsupported-media-type")
    assert name in response.json()["detail"]
    assert repr(value) in response.json()["detail"]


def test_a_body_that_does_not_go_on_is_given_up(shared: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.05)
    for begun in (b"", b'{"task": "ec'):
        with socket.create_connection(("127.0.0.1", shared.port)) as connection:
            connection.sendall(
                f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {shared.token()}\r\n"
                "Content-Type: application/json\r\nContent-Length: 16\r\n\r\n".encode()
                + begun
            )
            answer = b"".join(iter(lambda: connection.recv(4096), b""))  # to the end: the connection is closed

        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body-timeout" in answer


def test_a_body_that_comes_slowly_is_read(shared: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(bodies, "SLOWEST_PER_SECOND", 1)
    go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b'{"task": "echo"'
        go_on.wait(0.3)  # longer than a body may stall at its beginning
        yield b"}"

    assert post(shared, slow()).status_code == 202


def test_json_may_be_declared_with_a_charset(shared: House):
    assert post(shared, '{"task": "echo"}', **{"Content-Type": "Application/JSON; charset=utf-8"}).status_code == 202


# Sizes


@pytest.fixture
def small(blank_sqlite: Path, tmp_path: Path) -> Iterator[House]:
    with house(blank_sqlite, tmp_path / "home", max_body_bytes=2048) as made:
        yield made


def sized(length: int) -> bytes:
    body = b'{"task": "echo", "args": {"value": ""}}'
    return body.replace(b'""', b'"' + b"x" * (length - len(body)) + b'"')


def test_a_body_of_the_limit_is_accepted_and_one_byte_more_is_not(small: House):
    assert [post(small, sized(n)).status_code for n in (2048, 2049)] == [202, 413]


def test_a_body_without_a_length_is_refused_once_it_is_too_long(small: House):
    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1024

    response = small.client().post(JOBS, content=endless(), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "body-too-large")


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(small: House):
    with socket.create_connection(("127.0.0.1", small.port)) as connection:
        connection.sendall(
            f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {small.token()}\r\n"
            "Content-Type: application/json\r\nContent-Length: 999999999\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


# Limits and unique jobs


@pytest.mark.parametrize(
    ("task", "given", "kept"),
    [
        ("echo", {}, [None, None]),
        ("echo", {"time_limit": 2.5}, [2.5, None]),
        ("echo", {"soft_time_limit": 3}, [None, 3]),
        ("echo", {"time_limit": 9, "soft_time_limit": 9}, [9, 9]),
        ("limited", {}, [60, 50]),
        ("limited", {"time_limit": 90}, [90, 50]),
        ("limited", {"time_limit": 40}, [40, None]),
        ("limited", {"soft_time_limit": 55}, [60, 55]),
    ],
)
def test_a_time_limit_goes_to_the_worker_in_the_message(shared: House, task: str, given: Any, kept: list[Any]):
    id = shared.submit(task, **given)["id"]
    with shared.ledger.reading() as connection:
        query = "SELECT headers FROM payloads JOIN jobs ON jobs.key = payloads.job WHERE id = ?"
        [headers] = connection.exec_driver_sql(query, (id,)).scalars()

    assert json.loads(headers)["timelimit"] == kept


def test_a_unique_key_answers_the_job_it_stands_for(shared: House):
    body = {"task": "add", "args": [1], "unique": {"key": unique("k")}}
    first, again = (shared.client().post(JOBS, json=body) for _ in range(2))

    assert (again.status_code, again.json()) == (202, first.json())
    assert (first.headers.get("Unique-Replayed"), again.headers["Unique-Replayed"]) == (None, "true")
    assert again.headers["Location"] == first.headers["Location"]
    other = shared.client("bob").post(JOBS, json=body)
    assert other.json()["id"] != first.json()["id"]


def test_a_unique_key_holds_until_the_job_has_ended_and_through_its_window(shared: House):
    queue, key = unique("q"), unique("k")
    body = {"task": "echo", "queue": queue, "unique": {"key": key}}
    first = shared.client().post(JOBS, json=body).json()["id"]
    shared.end(queue)
    second = shared.client().post(JOBS, json={**body, "unique": {"key": key, "window": 3600}}).json()["id"]
    shared.end(queue)
    third = shared.client().post(JOBS, json=body).json()

    assert (first != second, third["id"], third["state"]) == (True, second, "succeeded")


def test_a_unique_key_used_by_fifty_at_once_makes_one_job(shared: House):
    client, body = shared.client(), {"task": "echo", "unique": {"key": unique("k")}}
    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(lambda _: client.post(JOBS, json=body), range(50)))

    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1
    assert sum("Unique-Replayed" not in response.headers for response in responses) == 1


# Idempotency


def test_a_repeated_key_answers_the_first_job_again(shared: House):
    key = unique("key")
    first = post(shared, '{"task": "echo"}', **{"Idempotency-Key": key})
    again = post(shared, '{"task": "echo"}', **{"Idempotency-Key": key})

    assert (again.status_code, again.json()) == (202, first.json())
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert again.headers["Location"] == first.headers["Location"]


def test_a_repeated_key_with_another_body_is_refused(shared: House):
    key = unique("key")
    post(shared, '{"task": "echo"}', **{"Idempotency-Key": key})
    response = post(shared, '{"task": "echo", "priority": 1}', **{"Idempotency-Key": key})

    assert (response.status_code, response.json()["code"]) == (422, "idempotency-mismatch")


def test_two_owners_may_use_the_same_key(shared: House):
    headers = {"Idempotency-Key": unique("key")}
    ids = [
        shared.client(owner).post(JOBS, json={"task": "echo"}, headers=headers).json()["id"] for owner in ("ann", "bob")
    ]

    assert len(set(ids)) == 2


def test_a_key_used_by_many_at_once_makes_one_job(shared: House):
    headers, client = {"Idempotency-Key": unique("key")}, shared.client()
    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda _: client.post(JOBS, json={"task": "echo"}, headers=headers), range(60)))

    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1
    assert sum("Idempotency-Replayed" not in response.headers for response in responses) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_a_key_that_is_not_visible_text_is_refused(shared: House, key: str):
    response = post(shared, '{"task": "echo"}', **{"Idempotency-Key": key.encode("latin-1")})  # type: ignore[arg-type]

    assert paths(response) == ["Idempotency-Key"]


# Promises


def test_what_was_accepted_is_in_the_file_at_that_moment(own: House):
    client = own.client()
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: client.post(JOBS, json={"task": "add", "args": [n]}).json()["id"], range(200)))

    with sqlite3.connect(own.settings.home / "ledger.db") as other:
        kept = {row[0] for row in other.execute("SELECT id FROM jobs")}
    assert set(ids) == kept


def test_one_wrong_request_among_many_spoils_no_other(shared: House):
    client = shared.client()
    bodies = [{"task": "add", "args": [n if n % 5 else "x"]} for n in range(100)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda body: client.post(JOBS, json=body).status_code, bodies))

    assert statuses == [202 if n % 5 else 422 for n in range(100)]


def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(own: House):
    client, accepted, answers = own.client(), [], set()
    with own.ledger.reading() as connection:
        now = connection.exec_driver_sql("PRAGMA page_count").scalar()
    set_max_pages(own, now + 40)
    for _ in range(200):
        response = client.post(JOBS, json={"task": "echo", "args": {"value": "x" * 2000}})
        answers.add((response.status_code, response.json().get("code")))
        if response.status_code == 202:
            accepted.append(response.json()["id"])

    assert answers == {(202, None), (507, "ledger-full")}
    assert {job["id"] for job in pages_of(client)} == set(accepted)
    set_max_pages(own, 1_000_000)
    assert client.post(JOBS, json={"task": "echo"}).status_code == 202


def set_max_pages(house: House, pages: int) -> None:
    """Make the database refuse to grow, as a full disk does."""
    with house.ledger.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.rollback()


def pages_of(client: httpx.Client) -> Iterator[dict[str, Any]]:
    after: dict[str, str] = {}
    while True:
        page = client.get(JOBS, params=after).json()
        yield from page["jobs"]
        if page["after"] is None:
            return
        after = {"after": page["after"]}
