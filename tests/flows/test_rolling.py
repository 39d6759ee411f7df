"""Rolling deploys: every process is told to stop and started anew, one after the other, under load; nobody notices.

Requests go through nginx to two web processes. The long form is twenty rounds (`make soak`).
"""

import itertools
import json
import signal
import threading
import time
from collections import Counter
from uuid import uuid4

import httpx
import postgres
import pytest
import servers
from instance import Instance, busy, free_port, instance, until
from nursery import Nursery
from oracle import violations

from celeriac.states import State

SOAK = [pytest.mark.soak, pytest.mark.timeout(1200)]
RUNS = [
    pytest.param("postgres", 3, marks=pytest.mark.postgres),
    pytest.param("postgres", 20, marks=[pytest.mark.postgres, *SOAK]),
    pytest.param("sqlite", 20, marks=SOAK),
]
_numbers = itertools.count()


class Fleet:
    """Two of every process of an instance, behind an nginx."""

    def __init__(self, house: Instance, front: servers.Nginx, ports: dict[str, int]) -> None:
        self.house, self.front, self.ports = house, front, ports
        self.names = ("keeper1", "web1", "worker1", "keeper2", "web2", "worker2")
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        """Start a process and wait until it is ready."""
        house = self.house
        if name.startswith("web"):
            house.start(name, "web", house.app, CELERIAC_PORT=str(self.ports[name]))
            url = f"http://127.0.0.1:{self.ports[name]}/readyz"
            until(lambda: _status(url) == 200, f"{name}\n{house.log(name)}")
        elif name.startswith("worker"):
            house.worker(name, concurrency=3, CELERIAC_SHUTDOWN_SECONDS="20")
        else:
            house.keeper(name)

    def renew(self, name: str) -> float:
        """Stop a process as a deploy does, and start it again; return how long the stop took."""
        process, began = self.house.processes[name], time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, self.house.log(name)
        took = time.monotonic() - began
        self.start(name)
        return took


class Load:
    """Clients that submit, look and wait, and write down every answer that is not what they asked for."""

    def __init__(self, url: str, token: str) -> None:
        self.ids: list[str] = []
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = threading.Event()
        self._url, self._token = url, token
        self.threads = [threading.Thread(target=self._client) for _ in range(3)]

    def _client(self) -> None:
        with httpx.Client(
            base_url=f"{self._url}/api/v1", headers={"Authorization": f"Bearer {self._token}"}, timeout=20,
            trust_env=False,
        ) as http:  # fmt: skip
            while not self.over.is_set():
                body = {"task": "wait", "args": {"seconds": 0.3}}
                told = self._ask(http, 202, "POST", "/jobs", json=body, headers={"Idempotency-Key": uuid4().hex})
                if told:
                    self.ids.append(json.loads(told)["id"])
                    self._ask(http, 200, "GET", f"/jobs/{self.ids[-1]}?wait=1")
                    self._ask(http, 200, "GET", "/jobs?limit=3")

    def _ask(self, http: httpx.Client, expected: int, method: str, path: str, **options: object) -> str | None:
        try:
            answer = http.request(method, path, **options)
        except httpx.HTTPError as error:
            self.wrong.append(f"{method} {path}: {error!r}")
            return None
        self.answers[f"{method} {answer.status_code}"] += 1
        if answer.status_code == expected:
            return answer.text
        self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return None


@pytest.mark.parametrize(("database", "rounds"), RUNS)
def test_a_rolling_deploy_loses_no_job_fails_no_request_and_runs_nothing_twice(
    database: str, rounds: int, tmp_path, nursery: Nursery, request: pytest.FixtureRequest
):
    url = ""
    if database == "postgres":
        request.getfixturevalue("blank_postgres")
        url = postgres.server().create(f"rolling_{next(_numbers)}")
    ports = {"web1": free_port(), "web2": free_port()}
    with (
        servers.private(servers.Nginx, *ports.values()) as front,
        instance(tmp_path / "home", database_url=url, nursery=nursery) as house,
    ):
        fleet, load, stops = Fleet(house, front, ports), Load(front.url, house.token), []
        with busy(load.threads, load.over):
            for _ in range(rounds):
                stops += [fleet.renew(name) for name in fleet.names]
        jobs = house.ended(load.ids)

        assert load.wrong == [], front.log()
        assert {job.state for job in jobs} == {State.SUCCEEDED}
        assert {job.attempt for job in jobs if "rescued" in house.kinds(job.id)} == set()
        assert Counter(house.runs()).most_common(1)[0][1] == 1  # none shorter than the grace ran twice
        assert len(house.runs()) == len(load.ids) > 5 * rounds
        assert violations(house.ledger, load.ids) == []
        told = {"restarts": len(stops), "jobs": len(jobs), "longest stop": f"{max(stops):.1f} s", **load.answers}
        print("rolling:", database, told)


def _status(url: str) -> int:
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.HTTPError:
        return 0
