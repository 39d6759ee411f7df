"""What Prometheus is told, by whom it may be asked, and that it can read it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from celeriac.access import Role
from web.house import House, house, unique

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(house: House) -> Samples:
    """Every figure by its name and labels, read as Prometheus reads it."""
    response = house.client(role=Role.VIEWER).get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def figure(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def opened(blank_sqlite: Path, tmp_path: Path) -> Iterator[House]:
    """A web process that shows its metrics to everybody."""
    with house(blank_sqlite, tmp_path / "home", metrics=True) as made:
        yield made


def test_metrics_are_closed_unless_opened(shared: House, opened: House):
    assert shared.client(role=None).get("/metrics").status_code == 401
    assert opened.client(role=None).get("/metrics").status_code == 200


def test_jobs_queues_and_workers_are_told(own: House):
    for _ in range(3):
        own.submit(queue="small")
    own.end("small")
    own.client().put("/api/v1/queues/big/pause")

    samples = scrape(own)

    assert figure(samples, "celeriac_jobs", state="queued", queue="small") == 2
    assert figure(samples, "celeriac_jobs", state="succeeded", queue="small") == 1
    assert figure(samples, "celeriac_jobs", state="failed", queue="small") == 0
    assert figure(samples, "celeriac_queue_oldest_seconds", queue="small") > 0
    assert figure(samples, "celeriac_queue_paused", queue="big") == 1
    assert figure(samples, "celeriac_workers_online") == figure(samples, "celeriac_slots") == 0


def test_requests_are_counted_by_the_template_of_their_route(own: House):
    client = own.client()
    for id in ("a", "b/c"):
        client.get(f"/api/v1/jobs/{id}")
    client.get("/nowhere")
    client.head("/api/v1/queues")
    samples, name = scrape(own), "celeriac_http_request_seconds_count"

    assert figure(samples, name, method="GET", route="/api/v1/jobs/{id}", status="404") == 2
    assert figure(samples, name, method="GET", route="unknown", status="404") == 1
    assert figure(samples, name, method="GET", route="/api/v1/queues", status="200") == 1


def test_moves_commits_and_their_latency_are_counted(own: House):
    for _ in range(3):
        own.submit()
    samples = scrape(own)

    assert figure(samples, "celeriac_moves_total", move="submit") == 3
    assert figure(samples, "celeriac_commits_total") == 3
    assert figure(samples, "celeriac_ledger_write_seconds_count") == 3
    assert figure(samples, "celeriac_ledger_write_seconds_bucket", le="+Inf") == 3
    assert figure(samples, "celeriac_ledger_write_seconds_sum") > 0


def test_a_blocked_event_loop_shows(own: House, wait_until):
    async def block() -> None:
        time.sleep(0.7)

    own.submit()
    loop = own.site._waves._loop
    loop.call_soon_threadsafe(lambda: loop.create_task(block()))

    wait_until(lambda: own.site.metrics.lag > 0.1, "the lag is seen")
    assert figure(scrape(own), "celeriac_event_loop_lag_seconds") > 0.1


def test_a_hostile_name_of_a_queue_breaks_nothing(shared: House):
    name = unique('quote" back\\slash\nline {x="y"} ')
    shared.submit(queue=name)

    assert figure(scrape(shared), "celeriac_jobs", state="queued", queue=name) == 1


def test_no_figure_holds_what_a_client_made_up(own: House):
    own.client().get(f"/api/v1/jobs/{os.urandom(8).hex()}?wait=nonsense")
    own.client().request("GET", f"/{os.urandom(8).hex()}")
    routes = {dict(labels).get("route") for _, labels in scrape(own)} - {None}

    assert routes <= {"/api/v1/jobs/{id}", "unknown", "/metrics"}
