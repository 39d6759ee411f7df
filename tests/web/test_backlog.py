"""What may wait: up to a bound jobs are accepted, above it they are refused until some have run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.moves import accept, end, success, take_one

from celeriac.errors import BacklogFull
from celeriac.jobs import new_id
from celeriac.ledger import Ledger
from celeriac.ledger.backlog import Backlog
from web.house import House, house

MOST = 3


@pytest.fixture
def bounded(blank_sqlite: Path, tmp_path: Path) -> Iterator[House]:
    with house(blank_sqlite, tmp_path / "home", max_waiting=MOST) as made:
        yield made


def filled(made: House, wait_until: Callable[..., None]) -> str:
    """Submit until it is refused; return a queue that has the jobs."""
    queue = f"q{new_id()}"

    def refused() -> bool:
        response = made.client().post("/api/v1/jobs", json={"task": "echo", "args": {"value": 1}, "queue": queue})
        return response.status_code != 202

    wait_until(refused, "a refusal")
    return queue


def test_above_the_bound_a_submit_is_refused_with_the_time_to_come_again(bounded: House, wait_until):
    filled(bounded, wait_until)
    for path, body in (("jobs", {"task": "echo"}), ("jobs/batch", {"jobs": [{"task": "echo"}]})):
        response = bounded.client().post(f"/api/v1/{path}", json=body)

        assert (response.status_code, response.json()["code"]) == (503, "backlog-full")
        assert int(response.headers["Retry-After"]) > 0
        assert "CELERIAC_MAX_WAITING" in response.json()["detail"]


def test_other_moves_are_made_all_the_same(bounded: House, wait_until):
    queue = filled(bounded, wait_until)
    [job, *_] = bounded.client().get("/api/v1/jobs", params={"queue": queue}).json()["jobs"]

    assert bounded.client().put(f"/api/v1/jobs/{job['id']}/cancellation").status_code == 202


def test_when_jobs_have_run_submits_are_accepted_again(bounded: House, wait_until):
    queue = filled(bounded, wait_until)
    waiting = bounded.client().get(f"/api/v1/queues/{queue}").json()["counts"]["queued"]
    for _ in range(waiting - MOST + 1):
        bounded.end(queue)

    wait_until(lambda: bounded.client().post("/api/v1/jobs", json={"task": "echo"}).status_code == 202, "acceptance")


def test_a_program_is_refused_with_an_error_of_its_own(ledger: Ledger, fake_clock: Any):
    backlog = Backlog(ledger, 2)
    for _ in range(3):
        backlog.check()
        accept(ledger)
    fake_clock.advance(1)

    with pytest.raises(BacklogFull, match="3 jobs wait, and the most is 2"):
        backlog.check()
    end(ledger, success(take_one(ledger)))
    end(ledger, success(take_one(ledger)))
    fake_clock.advance(1)
    backlog.check()
