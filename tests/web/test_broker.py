"""A web process with a broker beside its ledger: it says how the broker does, and accepts jobs whatever that is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers

from celeriac.access import Role
from celeriac.states import State
from web.house import House, house
from web.test_metrics import figure, scrape

pytestmark = pytest.mark.redis


@pytest.fixture
def broker() -> Iterator[servers.Redis]:
    with servers.private(servers.Redis, "--user", "ann", "on", ">hidden", "~*", "&*", "+@all") as made:
        yield made


@pytest.fixture
def hinting(blank_sqlite: Path, tmp_path: Path, broker: servers.Redis) -> Iterator[House]:
    url = f"redis://ann:hidden@127.0.0.1:{broker.port}/0"
    with house(blank_sqlite, tmp_path / "home", broker_url=url) as made:
        yield made


def readiness(made: House) -> dict[str, object]:
    response = made.client(role=None).get("/readyz")
    assert response.status_code == 200
    told: dict[str, object] = response.json()
    return told


def test_metrics_tell_of_the_broker(hinting: House, wait_until: Callable[..., None]):
    hinting.submit()

    wait_until(lambda: figure(scrape(hinting), "celeriac_hints_total") == 1, "the hint")
    wait_until(lambda: figure(scrape(hinting), "celeriac_broker_messages", queue="default") == 1, "the depth")
    assert figure(scrape(hinting), "celeriac_broker_up") == 1


def test_without_a_broker_jobs_are_accepted_and_readiness_names_what_is_missing(
    hinting: House, broker: servers.Redis, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
):
    wait_until(lambda: figure(scrape(hinting), "celeriac_broker_up") == 1, "the broker")
    assert readiness(hinting) == {"status": "ready"}
    broker.kill()

    job = hinting.submit()
    assert job["state"] == State.QUEUED
    wait_until(lambda: readiness(hinting) == {"status": "ready", "degraded": ["broker"]}, "that it is noticed")
    assert figure(scrape(hinting), "celeriac_broker_up") == 0
    assert "The broker cannot be told of work" in caplog.text
    assert "hidden" not in caplog.text

    broker.start()
    wait_until(lambda: readiness(hinting) == {"status": "ready"}, "the return")
    assert hinting.client(role=Role.VIEWER).get(f"/api/v1/jobs/{job['id']}").status_code == 200
