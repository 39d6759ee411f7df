"""What supervisors are told, in good days and bad."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac import clock
from celeriac.access import Role
from celeriac.errors import LedgerFull
from celeriac.ledger import keys
from web.house import House
from web.test_submissions import set_max_pages


def test_a_healthy_server_is_alive_and_ready(shared: House):
    client = shared.client(role=None)

    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.head("/healthz").status_code == 200


def test_readiness_leaves_nothing_behind(own: House):
    own.client(role=None).get("/readyz")

    with own.ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM tickets").scalar() == 0


def test_readiness_is_tried_once_however_many_ask(own: House):
    client, before = own.client(role=None), changes(own)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: client.get("/readyz").status_code, range(40)))

    assert set(statuses) == {200}
    assert 2 <= changes(own) - before <= 2 * (1 + 5)  # once a second, should this machine be that slow


def test_a_full_disk_is_not_ready_and_recovers(own: House, monkeypatch: pytest.MonkeyPatch):
    client = own.client(role=None)
    with own.ledger.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    set_max_pages(own, pages)
    for _ in range(60):  # until the free room inside the pages is used up
        if own.client().post("/api/v1/jobs", json={"task": "echo", "args": {"value": "x" * 900}}).status_code == 507:
            break
    fill_tickets(own)
    response = client.get("/readyz")

    assert (response.status_code, response.json()["code"]) == (507, "ledger-full")
    assert client.get("/healthz").status_code == 200
    set_max_pages(own, 1_000_000)
    real = time.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: real() + 2)
    assert client.get("/readyz").status_code == 200


def changes(house: House) -> int:
    with house.ledger.writing() as connection:
        count = connection.exec_driver_sql("SELECT total_changes()").scalar()
        connection.rollback()
    return int(count or 0)


def fill_tickets(house: House) -> None:
    """Use up the page of the table that readiness writes to."""
    with contextlib.suppress(LedgerFull):
        for _ in range(200):
            keys.create_ticket(house.ledger, "ann", Role.VIEWER)
