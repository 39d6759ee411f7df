"""Whatever is sent to the routes that submit: never a 500, never a job that is lost or half made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from web.house import JSON, House, house

ROUTES = ["/api/v1/jobs", "/api/v1/jobs/batch", "/api/v1/tasks/add/jobs", "/api/v1/tasks/echo/jobs"]
TABLES = ("jobs", "payloads", "events")


class Tally:
    """A house, and how many jobs it has accepted."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.accepted = 0

    def send(self, route: str, body: bytes, query: str = "", **headers: str) -> int:
        """Send a request; check the form of its answer, and that the ledger holds what was accepted, wholly."""
        address = f"{route}?{query}" if query else route
        response = self.house.client().post(address, content=body, headers={**JSON, **headers})
        assert response.status_code in (202, 400, 404, 413, 415, 422), response.text
        if response.status_code == 202:
            answer = response.json()
            replayed = "Idempotency-Replayed" in response.headers or "Unique-Replayed" in response.headers
            self.accepted += 0 if replayed else answer["batch"]["size"] if "batch" in answer and "jobs" in answer else 1
        else:
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.json()["code"] != "internal"
        with self.house.ledger.reading() as connection:
            counts = [connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar() for table in TABLES]
            [deltas] = connection.exec_driver_sql("SELECT COALESCE(SUM(jobs), 0) FROM count_deltas").scalars()
        assert [*counts, deltas] == [self.accepted] * 4
        return response.status_code


@pytest.fixture(scope="module")
def tally(blank_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    with house(blank_sqlite, tmp_path_factory.mktemp("surface")) as made:
        yield Tally(made)


numbers = st.integers() | st.floats() | st.sampled_from([2**63, -(2**64), 10**400, 1e308, -0.0])
texts = st.text() | st.sampled_from(["\0", "\ud800", "\udfff\ud800", "__type__", "NaN", "é" * 50, "\ufeff"])
scalars = st.none() | st.booleans() | numbers | texts
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8)
names = st.sampled_from(["echo", "add", "measured", "listed", "nope", "celery.chord", ""]) | texts
times = st.datetimes().map(lambda at: at.isoformat() + "Z") | st.sampled_from(["2030-01-01T00:00:00Z", "soon"])
tags = st.lists(texts | st.just("a"), max_size=3)


def maybe(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(right, right, right, anything)


requests = st.fixed_dictionaries(
    {"task": maybe(names)},
    optional={
        "args": maybe(st.dictionaries(st.sampled_from(["value", "x", "y", "text"]) | texts, anything)),
        "queue": maybe(texts),
        "priority": maybe(st.integers(-1, 10)),
        "run_at": maybe(times),
        "delay": maybe(st.floats(0, 1e4)),
        "expires_at": maybe(times),
        "max_attempts": maybe(st.integers(0, 5)),
        "tags": maybe(tags),
        "unique": maybe(st.fixed_dictionaries({"key": texts}, optional={"window": numbers})),
        "time_limit": maybe(st.floats(0, 100)),
        "soft_time_limit": maybe(st.floats(0, 100)),
        "hue": anything,
    },
)
surface = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def as_bytes(value: Any, ascii: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")


@surface
@given(st.sampled_from(ROUTES), requests, st.booleans(), st.sampled_from(["", "k1", "k2", "a b", "x" * 256]))
def test_requests_right_and_wrong(tally: Tally, route: str, request: Any, ascii: bool, key: str):
    body = request.get("args", {}) if "/tasks/" in route else request
    tally.send(route, as_bytes(body, ascii), **({"Idempotency-Key": key} if key else {}))


@surface
@given(st.lists(requests | anything, max_size=5), st.booleans())
def test_batches_right_and_wrong(tally: Tally, jobs: list[Any], ascii: bool):
    tally.send("/api/v1/jobs/batch", as_bytes({"jobs": jobs}, ascii))


@surface
@given(st.sampled_from(ROUTES), st.binary() | anything.map(lambda value: as_bytes(value, True)))
def test_bodies_of_any_kind(tally: Tally, route: str, body: bytes):
    tally.send(route, body)


@surface
@given(st.sampled_from(ROUTES), requests, st.integers(0, 400), st.binary(max_size=3))
def test_requests_with_damage(tally: Tally, route: str, request: Any, place: int, damage: bytes):
    body = as_bytes({"jobs": [request]} if route.endswith("batch") else request, True)
    tally.send(route, body[:place] + damage + body[place + len(damage) :])


@surface
@given(st.dictionaries(st.sampled_from(["queue", "priority", "delay", "tags", "unique_key", "run_at", "x"]), st.text()))
def test_queries_of_any_kind(tally: Tally, query: dict[str, str]):
    tally.send("/api/v1/tasks/echo/jobs", b"{}", urlencode(query, errors="replace"))


@pytest.mark.parametrize("depth", [100, 190, 201, 500, 900, 990, 1010, 3000, 10_000])
@pytest.mark.parametrize("form", ["[%s]", '{"a":%s}', '{"token":[%s]}'])
def test_nests_of_any_depth(tally: Tally, depth: int, form: str):
    left, right = form.split("%s")
    nest, levels = left * depth + "1" + right * depth, depth * left.count("[") + depth * left.count("{")
    for task, args in (("echo", f'{{"value": {nest}}}'), ("listed", f"[{nest}]")):
        job = f'{{"task": "{task}", "args": {args}}}'
        for route, body in (("/api/v1/jobs", job), ("/api/v1/jobs/batch", f'{{"jobs": [{job}]}}')):
            assert tally.send(route, body.encode()) == 202 or levels > 190
    for job in tally.house.client().get("/api/v1/jobs", params={"limit": 2}).json()["jobs"]:
        assert tally.house.client().get(f"/api/v1/jobs/{job['id']}").status_code == 200
