"""Postgres in trouble: submits are answered in bounded time, nothing acknowledged is lost, and work goes on by itself.

One instance meets one trouble after the other, through a proxy. Its worker and its keeper are never restarted,
no job runs twice, and nobody is taken for dead. `make soak` makes each trouble last longer than every timeout.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import postgres
import psycopg
import pytest
import servers
from instance import FAST, Instance, busy, instance, until
from nursery import Nursery
from oracle import violations
from proxy import Proxy, proxy

from celeriac.ledger import read
from celeriac.states import State

pytestmark = pytest.mark.postgres

CONNECTIONS = 40
ANSWERED_SECONDS = 22  # the bound of a request and of a connection that is gone without a word, and some load here
BACK_SECONDS = 15


@dataclass
class Scene:
    """An instance, its database server, and what is between them."""

    house: Instance
    server: postgres.Server
    wire: Proxy

    def sql(self, *statements: str) -> None:
        """Speak to the server past the proxy."""
        with psycopg.connect(self.server.conninfo(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Scene]:
    # Patient leases: whoever beats is alive, and on a machine this busy a beat may take its time.
    environment = {"CELERIAC_BEAT_SECONDS": "0.5", "CELERIAC_LEASE_SECONDS": "5", "CELERIAC_LEADER_SECONDS": "3"}
    with (
        postgres.private(f"max_connections={CONNECTIONS}", "superuser_reserved_connections=3") as server,
        proxy(server.port) as wire,
        instance(
            tmp_path_factory.mktemp("house"), database_url=server.conninfo(), nursery=nursery,
            **{**FAST, **environment, "CELERIAC_DATABASE_URL": wire.before(server.conninfo())},
        ) as house,
    ):  # fmt: skip
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE ROLE plain LOGIN")
            connection.execute("ALTER DATABASE celeriac OWNER TO plain")
        house.keeper()
        house.web()
        house.worker(concurrency=3)
        yield Scene(house, server, wire)


@contextlib.contextmanager
def restarted(scene: Scene, number: int, seconds: float) -> Iterator[None]:
    scene.server.stop(number)
    yield
    scene.server.start()


@contextlib.contextmanager
def backends_terminated(scene: Scene) -> Iterator[None]:
    """Five a second, as they come."""
    over = threading.Event()

    def terminate() -> None:
        with psycopg.connect(scene.server.conninfo(), autocommit=True) as connection:
            while not over.wait(0.2):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND application_name LIKE 'celeriac%' ORDER BY random() LIMIT 1"
                )

    thread = threading.Thread(target=terminate)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def slow(scene: Scene) -> Iterator[None]:
    scene.wire.latency = 0.25  # each way
    yield
    scene.wire.heal()


@contextlib.contextmanager
def sliced(scene: Scene) -> Iterator[None]:
    scene.wire.slice, scene.wire.latency, scene.wire.jitter = 200, 0.002, 0.004
    yield
    scene.wire.heal()


@contextlib.contextmanager
def reset(scene: Scene) -> Iterator[None]:
    scene.wire.reset()
    yield
    scene.wire.reset()


@contextlib.contextmanager
def refused(scene: Scene) -> Iterator[None]:
    scene.wire.down()
    yield
    scene.wire.heal()


@contextlib.contextmanager
def half_open(scene: Scene) -> Iterator[None]:
    scene.wire.half_open()
    yield
    scene.wire.heal()


@contextlib.contextmanager
def read_only(scene: Scene) -> Iterator[None]:
    """As a server is after another one was promoted."""
    scene.sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    yield
    scene.sql("SET default_transaction_read_only = off", "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")


@contextlib.contextmanager
def no_connection_left(scene: Scene) -> Iterator[None]:
    """Others take what there is, and ours lose theirs."""
    with contextlib.ExitStack() as held:
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'celeriac%'"
        with psycopg.connect(scene.server.conninfo(), autocommit=True) as connection:
            for _ in range(3):
                connection.execute(terminate)
                with contextlib.suppress(psycopg.OperationalError):
                    for _ in range(CONNECTIONS):
                        url = scene.server.conninfo().replace("postgres@", "plain@")
                        held.enter_context(contextlib.closing(psycopg.connect(url)))
        yield


@contextlib.contextmanager
def rows_locked(scene: Scene) -> Iterator[None]:
    """Somebody has begun a transaction, taken every job there is, and gone to lunch."""
    with psycopg.connect(scene.server.conninfo()) as connection:
        connection.execute("SELECT 1 FROM jobs WHERE finished_at IS NULL FOR UPDATE")
        yield
        connection.rollback()


TROUBLES: dict[str, Callable[[Scene], contextlib.AbstractContextManager[None]]] = {
    "restarted fast": lambda scene: restarted(scene, 2, 2),
    "restarted immediately": lambda scene: restarted(scene, 3, 2),
    "backends terminated": backends_terminated,
    "slow": slow,
    "sliced": sliced,
    "reset": reset,
    "refused": refused,
    "half open": half_open,
    "read only": read_only,
    "no connection left": no_connection_left,
    "rows locked": rows_locked,
}
SHORT = {"restarted immediately", "backends terminated", "half open", "no connection left"}
CASES = [
    *(pytest.param(name, 2.5, id=name) for name in TROUBLES if name in SHORT),
    *(pytest.param(name, 45, id=f"{name} for long", marks=pytest.mark.soak) for name in TROUBLES),
]


@dataclass
class Clients:
    """What clients see meanwhile: every answer, and how long it took."""

    house: Instance
    accepted: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._submit) for _ in range(4)]

    def _submit(self) -> None:
        with self.house.http as http:
            while not self.over.is_set():
                began = time.monotonic()
                try:
                    answer = http.post("/jobs", json={"task": "wait", "args": {"seconds": 0.05}}, timeout=60)
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                    continue
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
                if answer.status_code == 202:
                    self.accepted.append(answer.json()["id"])
                elif answer.status_code not in (503, 507) or "retry-after" not in answer.headers:
                    self.wrong.append(f"{answer.status_code} {answer.text[:300]}")
                self.over.wait(0.1)

    def go_on_for(self, seconds: float) -> None:
        self.over.wait(seconds)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("trouble", "seconds"), CASES)
def test_postgres_in_trouble_costs_time_and_nothing_else(scene: Scene, trouble: str, seconds: float):
    house, clients = scene.house, Clients(scene.house)
    pids = {name: process.pid for name, process in house.processes.items()}
    began = len(house.runs())
    [long] = house.submit("wait", seconds=seconds + 1)
    until(lambda: house.job(long).started_at, "the long job to start")
    with busy(clients.threads, clients.over):
        with TROUBLES[trouble](scene):
            clients.go_on_for(seconds)
        back = time.monotonic()
        [after] = until(lambda: _submitted(house), "a submit to be accepted", BACK_SECONDS)
        house.ended([after], BACK_SECONDS)
        back = time.monotonic() - back
    jobs = house.ended([long, after, *clients.accepted])

    print(f"{trouble}: back after {back:.1f} s, slowest answer {clients.slowest:.1f} s, {clients.statuses}")
    assert clients.wrong == []
    assert clients.slowest < ANSWERED_SECONDS
    assert back < BACK_SECONDS
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert pids == {name: process.pid for name, process in house.processes.items() if process.poll() is None}
    assert [worker.online for worker in read.all_workers(house.ledger)] == [True]  # nobody was taken for dead
    with house.ledger.reading() as connection:
        total = sum(read.all_counts(connection).values())
    assert len(house.runs()) == total, f"{len(house.runs()) - began} runs"  # what was not acknowledged runs once, too
    assert violations(house.ledger, clients.accepted) == []


def test_through_a_pgbouncer_in_transaction_mode_all_goes_its_way_and_its_restart_is_survived(tmp_path, scene: Scene):
    url = scene.server.create("bounced")
    with servers.private(servers.PgBouncer, scene.server.port) as bouncer:
        environment = {"CELERIAC_DATABASE_URL": bouncer.url("bounced"), "CELERIAC_DATABASE_DIRECT_URL": url}
        with instance(tmp_path / "home", database_url=url, nursery=scene.house.nursery, **environment) as house:
            house.keeper()
            house.web()
            house.worker(concurrency=3)
            clients = Clients(house)
            [long] = house.submit("wait", seconds=4)
            with busy(clients.threads, clients.over):
                until(lambda: len(clients.accepted) > 30, "some to be accepted")
                bouncer.kill()
                until(lambda: clients.statuses.get(503), "others to be refused")
                bouncer.start()
                many = len(clients.accepted)
                until(lambda: len(clients.accepted) > many + 30, "more to be accepted", BACK_SECONDS)
            retried = house.submit("flaky", failures=2)
            jobs = house.ended([long, *retried, *clients.accepted])

            assert clients.wrong == []
            assert {job.state for job in jobs} == {State.SUCCEEDED}
            assert [worker.online for worker in read.all_workers(house.ledger)] == [True]
            assert violations(house.ledger, clients.accepted) == []


@pytest.mark.soak
def test_a_full_disk_refuses_submits_and_costs_nothing_that_was_acknowledged(tmp_path, nursery: Nursery):
    with (
        postgres.on_a_small_disk() as (server, ballast),
        instance(tmp_path / "home", database_url=server.conninfo(), nursery=nursery) as house,
    ):
        house.keeper()
        house.web()
        house.worker(concurrency=3)
        clients = Clients(house)
        with busy(clients.threads, clients.over):
            until(lambda: len(clients.accepted) > 10, "some to be accepted")
            ballast.fill()
            until(lambda: {503, 507} & clients.statuses.keys(), "others to be refused", 120)
            clients.go_on_for(15)  # three leases
            ballast.free()
            if server.process and server.process.poll() is not None:  # Postgres gives up without room for its log
                server.process = None
                server.start()
            many = len(clients.accepted)
            until(lambda: len(clients.accepted) > many + 10, "more to be accepted", 60)
        jobs = house.ended(clients.accepted)

        print(f"disk full: {clients.statuses}")
        assert clients.wrong == []
        assert {job.state for job in jobs} == {State.SUCCEEDED}
        assert [worker.online for worker in read.all_workers(house.ledger)] == [True]
        assert violations(house.ledger, clients.accepted) == []


def _submitted(house: Instance) -> list[str]:
    with contextlib.suppress(httpx.HTTPError), house.http as http:
        answer = http.post("/jobs", json={"task": "wait", "args": {"seconds": 0.01}, "priority": 9})
        return [answer.json()["id"]] if answer.status_code == 202 else []
    return []
