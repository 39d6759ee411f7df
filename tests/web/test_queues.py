"""Pausing and resuming queues over HTTP, whatever they are called; figures of the whole."""

from urllib.parse import quote

import pytest

from celeriac import clock
from celeriac.access import Role
from celeriac.keeper.leader import Leader
from celeriac.keeper.tally import Tally
from web.house import House, unique

QUEUES = "/api/v1/queues"


def pause(name: str) -> str:
    return f"{QUEUES}/{quote(name, safe='')}/pause"


@pytest.mark.parametrize("kind", ["plain", "a/b", "pause", "Ünï cödé", "x" * 150])
def test_a_queue_is_paused_and_resumed_as_often_as_one_likes(shared: House, kind: str):
    client, name = shared.client(role=Role.OPERATOR), unique(kind)
    first, second = client.put(pause(name)), client.put(pause(name))

    assert (first.status_code, first.json()["name"], first.json()["paused"]) == (200, name, True)
    assert second.json() == first.json() == client.get(f"{QUEUES}/{quote(name, safe='')}").json()
    for _ in range(2):
        told = client.delete(pause(name))
        assert (told.status_code, told.json()["paused"], told.json()["paused_at"]) == (200, False, None)


def test_a_paused_queue_takes_jobs_and_gives_none(shared: House):
    name = unique("queue")
    shared.client().put(pause(name))
    id = shared.submit(queue=name)["id"]

    with pytest.raises(ValueError, match="not enough values"):
        shared.take(name)
    shared.client().delete(pause(name))
    assert shared.end(name) == id


@pytest.mark.parametrize("name", ["x" * 201, "a\0b"])
def test_a_name_that_no_queue_can_have_is_refused(shared: House, name: str):
    response = shared.client().put(pause(name))

    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, "/name")
    assert shared.client().get(f"{QUEUES}/{quote(name, safe='')}").json()["code"] == "queue-not-found"


def test_a_queue_nobody_knows_is_not_found(shared: House):
    assert shared.client().get(f"{QUEUES}/{unique('nothing')}").json()["code"] == "queue-not-found"


def test_a_queue_tells_how_many_workers_take_from_it(shared: House, worker_of_the_house: str):
    queues = {queue["name"]: queue for queue in shared.client().get(QUEUES).json()["queues"]}
    lonely = shared.submit(queue=unique("lonely"))["queue"]

    assert queues["default"]["workers"] >= 1
    assert shared.client().get(f"{QUEUES}/{lonely}").json()["workers"] == 0


# Figures


def test_figures_tell_what_waits_runs_and_ended(own: House):
    for _ in range(3):
        own.submit()
    own.end("default")
    own.take("default")
    leader = Leader(own.ledger, 6)
    leader.tick()
    Tally(leader).tick()

    told = own.client().get("/api/v1/stats").json()

    assert (told["counts"]["queued"], told["counts"]["running"], told["counts"]["succeeded"]) == (1, 1, 1)
    assert (told["running"], told["workers_online"], told["slots"]) == (1, 0, 0)
    assert [queue["name"] for queue in told["queues"]] == ["default"]
    assert len(told["endings"]) == 60
    assert sum(row["succeeded"] for row in told["endings"][-2:]) == 1


def test_figures_have_a_row_for_every_minute_asked_for(shared: House):
    rows = shared.client().get("/api/v1/stats", params={"minutes": 1440}).json()["endings"]
    moments = [row["at"] for row in rows]

    assert len(moments) == 1440
    assert moments == sorted(set(moments))
    assert moments[-1] <= (clock.rfc3339(clock.micros()) or "")


@pytest.mark.parametrize("query", ["minutes=0", "minutes=1441", "minutes=x", "hours=1"])
def test_wrong_values_for_the_figures_are_refused(shared: House, query: str):
    assert shared.client().get(f"/api/v1/stats?{query}").status_code == 422
