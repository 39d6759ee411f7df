"""Looking at jobs, waiting for them, their history; cancelling and sending through again."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from celeriac.access import Role
from celeriac.jobs import Failure, Message, Submission, Worker, new_id
from celeriac.ledger import nodes, submit
from web.house import House, unique

JOBS = "/api/v1/jobs"
BOOM = Failure("raised", "ZeroDivisionError", "division by zero", "Traceback …", '{"exc_type": "ZeroDivisionError"}')


def place(id: str, rest: str = "") -> str:
    return f"{JOBS}/{quote(id, safe='')}{rest}"


def ids(house: House, **query: Any) -> list[str]:
    response = house.client().get(JOBS, params=query)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["jobs"]]


# Lists


def test_a_list_is_narrowed_by_everything_it_offers(shared: House):
    queue, tag, owner = unique("queue"), unique("tag"), unique("owner")
    first = shared.submit("add", owner=owner, args=[1], queue=queue, tags=[tag, "x"])
    later = shared.submit("echo", owner=owner, queue=queue, tags=[tag], delay=60)

    both = [later["id"], first["id"]]
    assert ids(shared, queue=queue) == ids(shared, owner=owner) == ids(shared, tag=tag) == both
    assert ids(shared, queue=queue, state="scheduled") == [later["id"]]
    assert ids(shared, queue=queue, state="scheduled,queued,failed") == both
    assert ids(shared, queue=f"{queue},nowhere", task="add,nothing") == [first["id"]]
    assert ids(shared, tag=tag, since=later["created_at"]) == [later["id"]]
    assert ids(shared, tag=tag, until=later["created_at"]) == [first["id"]]
    assert ids(shared, q=tag[:-1]) == both
    assert ids(shared, q=first["id"]) == [first["id"]]
    assert ids(shared, q="%", tag=tag) == ids(shared, tag=tag, state="", until="2001-01-01T00:00:00Z") == []


def test_pages_hold_every_job_once_whatever_comes_in_meanwhile(shared: House):
    queue = unique("queue")
    made = [shared.submit(queue=queue)["id"] for _ in range(7)]
    seen, after = [], None
    while True:
        page = (
            shared.client().get(JOBS, params={"queue": queue, "limit": 3, **({"after": after} if after else {})}).json()
        )
        seen += [job["id"] for job in page["jobs"]]
        shared.submit(queue=queue)
        if (after := page["after"]) is None:
            break

    assert seen == made[::-1]


BAD_QUERIES = [
    ("state=lost", "/state/0"),
    ("state=queued,LOST", "/state/1"),
    ("limit=0", "/limit"),
    ("limit=501", "/limit"),
    ("limit=ten", "/limit"),
    ("since=yesterday", "/since"),
    ("since=2024-01-01", "/since"),
    ("until=1700000000", "/until"),
    ("after=k", "/after"),
    ("after=kffffffffffffffff", "/after"),
    ("after=k-1", "/after"),
    ("after=7", "/after"),
    ("colour=red", "/colour"),
    ("State=queued", "/State"),
    ("q=" + "x" * 256, "/q"),
    ("q=%00", "/q"),
    ("tag=%00", "/tag/0"),
]


@pytest.mark.parametrize(("query", "path"), BAD_QUERIES)
def test_a_wrong_value_of_a_list_is_told(shared: House, query: str, path: str):
    response = shared.client().get(f"{JOBS}?{query}")

    assert (response.status_code, response.json()["code"]) == (422, "invalid-request"), response.text
    assert [error["path"] for error in response.json()["errors"]] == [path]


@pytest.mark.parametrize("query", ["/jobs?limit=1&limit=2", "/jobs?q=a&q=b", "/operations?limit=1&limit=1"])
def test_a_single_value_given_twice_is_refused(shared: House, query: str):
    response = shared.client().get(f"/api/v1{query}")

    assert (response.status_code, response.json()["code"]) == (422, "invalid-request")
    assert response.json()["errors"][0]["message"] == "is given twice"


def test_several_values_may_be_given_as_several(shared: House):
    assert shared.client().get(f"{JOBS}?state=queued&state=running&limit=1").status_code == 200


def test_all_wrong_values_of_a_list_are_told_at_once(shared: House):
    response = shared.client().get(f"{JOBS}?state=lost&limit=0&since=x&hue=1")

    assert {error["path"] for error in response.json()["errors"]} == {"/state/0", "/limit", "/since", "/hue"}


def test_a_time_whose_plus_was_not_encoded_is_understood(shared: House):
    assert shared.client().get(f"{JOBS}?since=2090-01-01T00:00:00+01:00").json() == {"jobs": [], "after": None}


@pytest.mark.parametrize("route", ["/queues", "/workers", "/tasks"])
def test_a_route_without_values_takes_none(shared: House, route: str):
    assert shared.client().get(f"/api/v1{route}?x=1").status_code == 422


# One job


def test_lists_hold_previews_and_one_job_is_whole(shared: House):
    queue, long = unique("queue"), "x" * 5000
    id = shared.submit(args={"value": long}, queue=queue)["id"]
    shared.end(queue, json.dumps(long))

    whole = shared.client().get(place(id)).json()
    assert (whole["args"], whole["result"]) == ({"value": long}, long)
    [listed] = shared.client().get(JOBS, params={"queue": queue}).json()["jobs"]
    assert len(listed["args"]["value"]) <= 1024


def test_a_finished_job_tells_its_life(shared: House):
    queue = unique("queue")
    id = shared.submit(queue=queue)["id"]
    shared.end(queue, '{"n": 1}')

    job = shared.client().get(place(id)).json()
    assert (job["state"], job["result"], job["error"], job["attempt"], job["worker"]) == (
        "succeeded", {"n": 1}, None, 1, "w1@host",
    )  # fmt: skip
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["finished_at"].endswith("Z")


def test_a_failed_job_tells_why(shared: House):
    queue = unique("queue")
    shared.submit(queue=queue)
    id = shared.end(queue, failure=BOOM)

    error = shared.client().get(place(id)).json()["error"]
    assert error == {
        "code": "raised", "type": "ZeroDivisionError", "message": "division by zero", "traceback": "Traceback …",
    }  # fmt: skip


def test_values_are_shown_without_the_wrapping_of_celery(shared: House):
    queue = unique("queue")
    shared.submit(queue=queue)
    wrapped = [
        {"__type__": "datetime", "__value__": "2024-05-01T10:00:00"},
        {"__type__": "uuid", "__value__": {"hex": "01a1fd85ef127360bab4ed7f9653dc39"}},
        {"deep": {"__type__": "decimal", "__value__": "1.50"}},
        float("nan"),
        float("-inf"),
        "NaN",
    ]
    id = shared.end(queue, json.dumps(wrapped))

    shown = ["2024-05-01T10:00:00", "01a1fd85-ef12-7360-bab4-ed7f9653dc39", {"deep": "1.50"}, "NaN", "-Infinity", "NaN"]
    assert shared.client().get(place(id)).json()["result"] == shown


STRANGE_BODIES = [
    ("[[1, 2], {}, {}]", {"x": 1, "y": 2}),
    ('[[1], {"y": {"__type__": "decimal", "__value__": "2"}}, {"callbacks": null}]', {"x": 1, "y": "2"}),
    ('[[NaN], {"y": "\\ud800"}, {}]', {"x": "NaN", "y": "\ud800"}),
    ("[[1, 2, 3], {}, {}]", {"args": [1, 2, 3], "kwargs": {}}),
]


@pytest.mark.parametrize(("body", "shown"), STRANGE_BODIES)
def test_arguments_of_messages_from_anywhere_are_shown_by_name(shared: House, body: str, shown: dict[str, Any]):
    id, message = new_id(), Message('{"task": "add", "retries": 0}', "{}", body)
    shared.ledger.do(submit, Submission(id, "add", "elsewhere", "ann", message))

    assert shared.client().get(place(id)).json()["args"] == shown


@pytest.mark.parametrize("id", ["a b", "a/b/c", "100%", "?x=1#y", "ünï-𝄞", "..", "events", "a\\b", "x" * 255])
def test_an_id_may_be_any_text(shared: House, id: str):
    id = id if id == "x" * 255 or id == ".." else id + new_id()
    shared.ledger.do(submit, Submission(id, "echo", unique("q"), "ann", Message("{}", "{}", "[[1], {}, {}]")))
    client = shared.client()

    if id != "..":  # which every client takes for a folder
        assert client.get(place(id)).json()["id"] == id
        assert client.get(place(id, "/events")).json()["events"][0]["job"] == id
        assert client.put(place(id, "/cancellation")).json()["state"] == "cancelled"
        assert client.post(place(id, "/retries")).json()["state"] == "queued"


def job_routes(id: str) -> list[tuple[str, str]]:
    routes = [("GET", ""), ("GET", "?wait=5"), ("GET", "/events"), ("PUT", "/cancellation"), ("POST", "/retries")]
    return [(method, place(id, rest)) for method, rest in routes]


@pytest.mark.parametrize("id", ["nothing", "x" * 256, "a\0b", "�", "a b/c"])
def test_a_job_that_is_not_there_is_not_found(shared: House, id: str):
    for method, path in job_routes(id):
        response = shared.client().request(method, path)
        assert (response.status_code, response.json()["code"]) == (404, "job-not-found")


def test_somebody_elses_job_looks_like_one_that_does_not_exist(shared: House):
    id = shared.submit(owner="ann")["id"]
    stranger = shared.client("bob", Role.SUBMITTER)

    for method, path in job_routes(id):
        response = stranger.request(method, path)
        nothing = stranger.request(method, path.replace(id, "nothing")).json()
        assert response.status_code == 404
        assert response.json()["detail"].replace(id, "nothing") == nothing["detail"]
    assert id not in [job["id"] for job in stranger.get(JOBS, params={"q": id}).json()["jobs"]]
    assert stranger.get(JOBS, params={"owner": "ann"}).json()["jobs"] == []


def test_a_viewer_sees_jobs_of_others_and_moves_none(shared: House):
    id = shared.submit(owner="ann")["id"]
    viewer = shared.client("eve", Role.VIEWER)

    assert viewer.get(place(id)).status_code == 200
    assert viewer.put(place(id, "/cancellation")).status_code == 403


# Waiting


def test_waiting_for_a_job_that_has_ended_answers_at_once(shared: House):
    queue = unique("queue")
    shared.submit(queue=queue)
    id = shared.end(queue)

    assert shared.client().get(place(id, "?wait=60")).json()["result"] == 42


def test_a_waiting_caller_is_answered_when_the_job_ends(shared: House, wait_until: Callable[..., None]):
    queue = unique("queue")
    id = shared.submit(queue=queue)["id"]
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(shared.client().get(place(id, "?wait=60")).json()))
    caller.start()
    wait_until(lambda: shared.site.hub.waiting == 1, "the caller to wait")
    shared.end(queue)
    caller.join(30)

    assert [answer["state"] for answer in answers] == ["succeeded"]
    assert shared.site.hub.waiting == 0


def test_when_the_time_is_over_the_job_is_told_as_it_is(shared: House):
    id = shared.submit(queue=unique("queue"))["id"]

    assert shared.client().get(place(id, "?wait=0.05")).json()["state"] == "queued"
    assert shared.site.hub.waiting == 0


def test_a_caller_who_goes_away_is_forgotten(shared: House, wait_until: Callable[..., None]):
    id = shared.submit(queue=unique("queue"))["id"]
    with pytest.raises(httpx.ReadTimeout):
        shared.client().get(place(id, "?wait=60"), timeout=0.2)

    wait_until(lambda: shared.site.hub.waiting == 0, "the caller to be forgotten")


def test_many_callers_wait_without_a_thread_each(shared: House, wait_until: Callable[..., None]):
    queue, count = unique("queue"), 300
    id = shared.submit(queue=queue)["id"]
    headers, threads = {"Authorization": f"Bearer {shared.token()}"}, threading.active_count()

    async def wait_all() -> list[str]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=shared.url, headers=headers, limits=limits, timeout=60) as client:
            calls = [asyncio.ensure_future(client.get(place(id, "?wait=60"))) for _ in range(count)]
            await asyncio.to_thread(wait_until, lambda: shared.site.hub.waiting == count, "all callers to wait")
            assert threading.active_count() < threads + 60
            await asyncio.to_thread(shared.end, queue)
            return [response.json()["state"] for response in await asyncio.gather(*calls)]

    assert asyncio.run(wait_all()) == ["succeeded"] * count


def test_a_stopping_server_answers_who_waits(own: House, wait_until: Callable[..., None]):
    id = own.submit(queue=unique("queue"))["id"]
    answers: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: answers.append(own.client().get(place(id, "?wait=60"))))
    caller.start()
    wait_until(lambda: own.site.hub.waiting == 1, "the caller to wait")
    own.begin_stop()
    caller.join(30)

    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "queued")]


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "long"])
def test_a_wrong_time_to_wait_is_told(shared: House, wait: str):
    assert shared.client().get(place("nothing", f"?wait={wait}")).status_code == 422


# History


def test_the_history_of_a_job_is_told_in_order_and_in_pages(shared: House):
    queue = unique("queue")
    id = shared.submit(queue=queue)["id"]
    shared.end(queue)
    client = shared.client()

    page = client.get(place(id, "/events")).json()
    assert [event["kind"] for event in page["events"]] == ["submitted", "claimed", "started", "succeeded"]
    assert [event["number"] for event in page["events"]] == [1, 2, 3, 4]
    assert (page["after"], page["events"][1]["data"]["worker"]) == (None, "w1@host/7f3a")
    first = client.get(place(id, "/events?limit=3")).json()
    assert first["after"] == 3
    assert client.get(place(id, "/events?after=3")).json()["events"] == page["events"][3:]
    assert client.get(place(id, "/events?after=9007199254740992")).json() == {"events": [], "after": None}


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=99999999999999999999", "limit=0", "since=1"])
def test_a_wrong_value_of_a_history_is_told(shared: House, query: str):
    assert shared.client().get(place("nothing", f"/events?{query}")).status_code == 422


# Cancel and retry


def test_a_waiting_job_is_cancelled_at_once(shared: House):
    id = shared.submit(queue=unique("queue"))["id"]
    response = shared.client().put(place(id, "/cancellation"))

    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert (response.json()["also"], response.json()["also_count"]) == ([], 0)


def test_the_answer_to_a_cancel_tells_what_was_given_up_with_the_job(shared: House):
    id, behind = new_id(), [new_id() for _ in range(3)]
    chain = [{"task": "add", "args": [1], "kwargs": {}, "options": {"task_id": link}} for link in reversed(behind)]
    body = json.dumps([[], {}, {"chain": chain, "callbacks": None, "errbacks": None, "chord": None}])
    shared.ledger.do(submit, Submission(id, "echo", unique("queue"), "ann", Message("{}", "{}", body)))

    told = shared.client().put(place(id, "/cancellation")).json()
    last = shared.client().get(place(id, "/events")).json()["events"][-1]

    assert (told["state"], told["also"], told["also_count"]) == ("cancelled", behind, 3)
    assert (last["kind"], last["data"]) == ("cancelled", {"also": behind, "also_count": 3})
    assert [shared.client().get(place(link)).json()["state"] for link in behind] == ["cancelled"] * 3


def test_a_running_job_is_asked_to_stop(shared: House):
    queue = unique("queue")
    id = shared.submit(queue=queue)["id"]
    claimed = shared.take(queue)

    assert [shared.client().put(place(id, "/cancellation")).status_code for _ in range(2)] == [202, 202]
    assert [event["kind"] for event in shared.client().get(place(id, "/events")).json()["events"]].count(
        "cancel-requested"
    ) == 1
    shared.finish(claimed)


@pytest.mark.parametrize(("pool", "cooperative"), [("prefork", False), ("threads", True)])
def test_the_answer_to_a_cancel_says_whether_it_waits_for_the_jobs_help(own: House, pool: str, cooperative: bool):
    node = Worker("w1@host/7f3a", "w1@host", "host", 1, ("q",), ("echo",), 2, pool, "0.1.0", 0, 0, None, None)
    own.ledger.do(nodes.register, node)
    runs, waits = own.submit(queue="q")["id"], own.submit(queue="waits")["id"]
    own.take("q")

    again = [own.client().put(place(runs, "/cancellation")).json()["cooperative"] for _ in range(2)]
    assert again == [cooperative, cooperative]
    assert own.client().put(place(waits, "/cancellation")).json()["cooperative"] is False
    [worker] = own.client().get("/api/v1/workers").json()["workers"]
    assert (worker["pool"], worker["cooperative"]) == (pool, cooperative)


def test_an_ended_job_cannot_be_cancelled(shared: House):
    queue = unique("queue")
    shared.submit(queue=queue)
    id = shared.end(queue)
    response = shared.client().put(place(id, "/cancellation"))

    assert (response.status_code, response.json()["code"]) == (409, "job-final")


def test_only_a_failed_or_cancelled_job_is_sent_through_again(shared: House):
    queue = unique("queue")
    id = shared.submit(queue=queue)["id"]
    claimed, client = shared.take(queue), shared.client()

    running = client.post(place(id, "/retries"))
    assert (running.status_code, running.json()["code"]) == (409, "job-not-final")
    assert "running" in running.json()["detail"]
    shared.finish(claimed, failure=BOOM)
    again = client.post(place(id, "/retries"))
    assert (again.status_code, again.json()["state"], again.json()["error"]) == (202, "queued", None)
    shared.end(queue)
    assert client.post(place(id, "/retries")).json()["code"] == "job-succeeded"


# The rest of the instance


def test_queues_tell_exact_counts_and_the_age_of_the_oldest(shared: House):
    queue = unique("queue")
    oldest = shared.submit(queue=queue)
    shared.submit(queue=queue)
    shared.submit(queue=queue, delay=60)

    [told] = [item for item in shared.client().get("/api/v1/queues").json()["queues"] if item["name"] == queue]
    assert told == {
        "name": queue,
        "paused": False,
        "paused_at": None,
        "counts": {"queued": 2, "scheduled": 1},
        "oldest_queued_at": oldest["created_at"],
        "workers": 0,
    }


def test_workers_are_told(shared: House, worker_of_the_house: str):
    [worker] = [
        item for item in shared.client().get("/api/v1/workers").json()["workers"] if item["id"] == worker_of_the_house
    ]

    assert list(worker) == [
        "id", "name", "host", "pid", "queues", "concurrency", "pool", "cooperative", "online", "stuck", "running",
        "started_at", "beat_at", "version",
    ]  # fmt: skip
    assert (worker["online"], worker["queues"], worker["concurrency"]) == (True, ["default"], 2)


def test_tasks_are_told_with_the_schema_of_their_arguments(shared: House):
    tasks = {task["name"]: task for task in shared.client().get("/api/v1/tasks").json()["tasks"]}

    assert set(tasks) == {"add", "echo", "limited", "listed", "measured"}
    assert tasks["add"]["schema"]["required"] == ["x"]
    assert (tasks["measured"]["queues"], tasks["add"]["description"]) == (["small", "large"], "Add two numbers.")
