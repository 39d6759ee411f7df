"""Rolling deploys: every process is told to stop and started anew, one after the other, under load; nobody notices.

Requests go through nginx to two web processes. The long form is twenty rounds (`make soak`).
"""

import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import uuid4

import httpx
import pytest
import servers
from instance import SETUPS, TESTS, Instance, busy, free_port, on, until
from nursery import Nursery
from oracle import violations
from sqlalchemy import text

from celeriac.states import State

OPERATIONS = TESTS.parent / "docs" / "operations.md"
SOAK = [pytest.mark.soak, pytest.mark.timeout(1200)]
RUNS = [
    *(pytest.param(setup, 3, marks=SETUPS[setup]) for setup in ("postgres", "rabbitmq")),
    *(pytest.param(setup, 20, marks=[*SETUPS[setup], *SOAK]) for setup in SETUPS),
]
On = Callable[..., AbstractContextManager[Instance]]


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


class AsDocumented(servers.Nginx):
    """An nginx with the lines of docs/operations.md, which asks nobody else for a POST that was sent to one."""

    def prepare(self) -> None:
        super().prepare()
        [shown] = re.findall(r"```nginx\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
        assert "non_idempotent" not in shown
        for documented, port in zip((8787, 8788), self._ports, strict=True):
            shown = shown.replace(f":{documented} ", f":{port} ")
        shown = shown.replace("server {", f"server {{ listen 127.0.0.1:{self.port};")
        path = self.folder / "nginx.conf"
        path.write_text(re.sub(r"upstream web .*", lambda _: f"{shown} }}", path.read_text()))


class Load:
    """Clients that submit, look and wait, and write down every answer that is not what they asked for."""

    def __init__(self, url: str, token: str, clients: int = 3, keys: bool = True, seconds: float = 0.3) -> None:
        self.ids: list[str] = []
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = threading.Event()
        self._url, self._token, self._keys, self._seconds = url, token, keys, seconds
        self.threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def _client(self) -> None:
        with httpx.Client(
            base_url=f"{self._url}/api/v1", headers={"Authorization": f"Bearer {self._token}"}, timeout=20,
            trust_env=False,
        ) as http:  # fmt: skip
            while not self.over.is_set():
                body = {"task": "wait", "args": {"seconds": self._seconds}}
                headers = {"Idempotency-Key": uuid4().hex} if self._keys else {}
                told = self._ask(http, 202, "POST", "/jobs", json=body, headers=headers)
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


@pytest.mark.parametrize(("setup", "rounds"), RUNS)
def test_a_rolling_deploy_loses_no_job_fails_no_request_and_runs_nothing_twice(
    setup: str, rounds: int, instance_on: On, nursery: Nursery
):
    ports = {"web1": free_port(), "web2": free_port()}
    with (
        servers.private(servers.Nginx, *ports.values()) as front,
        instance_on(setup, nursery=nursery) as house,
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
        print("rolling:", setup, told)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("setup", on("postgres"))
def test_behind_an_nginx_as_documented_a_post_without_a_key_makes_one_job_or_says_that_it_failed(
    setup: str, instance_on: On, nursery: Nursery
):
    """It repeats no POST that a process has received, also not one that this process closes without having read it."""
    ports, rounds = {"web1": free_port(), "web2": free_port()}, 20
    with (
        servers.private(AsDocumented, *ports.values()) as front,
        instance_on(setup, nursery=nursery) as house,
    ):
        fleet, load = Fleet(house, front, ports), Load(front.url, house.token, clients=6, keys=False, seconds=0.01)
        with busy(load.threads, load.over):
            for _ in range(rounds):
                for name in fleet.names:
                    fleet.renew(name)
        house.all_ended()
        jobs = house.ended(load.ids)
        with house.ledger.reading() as connection:
            there = set(connection.execute(text("SELECT id FROM jobs")).scalars())
        runs = Counter(house.runs())

        print("rolling, as documented:", setup, dict(load.answers), f"{len(there) - len(load.ids)} jobs unheard of")
        assert [told for told in load.wrong if not told.startswith("POST /jobs: 502 ")] == [], front.log()
        assert len(load.wrong) < 2 * rounds, front.log()  # fewer than restarts of a web process
        assert set(load.ids) <= there
        assert len(there) <= len(load.ids) + len(load.wrong)
        assert {job.state for job in jobs} == {State.SUCCEEDED}
        assert (len(runs), runs.most_common(1)[0][1]) == (len(there), 1)
        assert violations(house.ledger, load.ids) == []


def _status(url: str) -> int:
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.HTTPError:
        return 0
