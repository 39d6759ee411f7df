"""Fixtures that every folder of tests shares: a ledger of its own, and time that passes only when told to.

`ledger` is parametrised by the databases of DATABASES; what holds on one must hold on all.
"""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import postgres
import psycopg
import pytest
import servers
from databases import DATABASES
from instance import Instance, instance

from celeriac import clock
from celeriac.ledger import Ledger, migrations

DEADLINE_SECONDS = 30.0
# A session opens many ledgers, listeners and processes; some systems allow 1,024 descriptors unless asked.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, 16_384 if _hard < 0 else min(_hard, 16_384)), _hard))
# Faster than TRUNCATE, which makes new files for every table and index.
EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE 'DELETE FROM ' || quote_ident(name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE 'ALTER SEQUENCE ' || quote_ident(name) || ' RESTART';
    END LOOP;
END $$
"""


@pytest.fixture(scope="session")
def blank_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite ledger, migrated once; tests work on copies of it."""
    path = tmp_path_factory.mktemp("blank") / "ledger.db"
    ledger = Ledger(f"sqlite:///{path}")
    migrations.upgrade(ledger)
    ledger.close()
    return path


@pytest.fixture(scope="session")
def blank_postgres() -> Iterator[str]:
    """The URL of a migrated ledger on a private Postgres; tests empty it first."""
    if postgres.binaries() is None:
        if postgres.required():
            pytest.fail("Postgres is not installed: make services")
        pytest.skip("Postgres is not installed")
    url = postgres.server().conninfo().replace("postgresql:", "postgresql+psycopg:")
    ledger = Ledger(url)
    migrations.upgrade(ledger)
    ledger.close()
    yield url
    postgres.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make soak` can be told (tests/faults/test_runs.py)."""
    soak = parser.getgroup("soak")
    soak.addoption("--minutes", type=float, default=10, help="how long everything breaks on each set-up")
    soak.addoption("--seed", type=int, default=1, help="of the sequence of troubles")
    soak.addoption("--setups", default="", help="only these: sqlite,postgres,rabbitmq,redis")
    soak.addoption("--reports", type=Path, help="a file for the reports of the runs, as JSON")


@pytest.fixture(scope="session", autouse=True)
def _brokers_end_with_the_session() -> Iterator[None]:
    yield
    servers.close()


BROKERS = {"rabbitmq": servers.rabbitmq, "redis": servers.redis_server}


@pytest.fixture(scope="session")
def instance_on(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Instance]]:
    """Give an instance on a set-up by name (`instance.SETUPS`), with a database of its own.

    Its broker is the one of the session and has forgotten the queue `default`. Only one instance may stand on it at
    a time: another one's workers would take its hints. So no fixture that outlives its module keeps one.
    """

    def give(setup: str, **options: Any) -> AbstractContextManager[Instance]:
        if setup in BROKERS:
            broker = BROKERS[setup]()
            broker.forget("default")
            options["CELERIAC_BROKER_URL"] = broker.url
        if setup != "sqlite":
            request.getfixturevalue("blank_postgres")
            options["database_url"] = postgres.server().create(f"on_{setup}_{os.urandom(4).hex()}")
        return instance(tmp_path_factory.mktemp(setup), **options)

    return give


@pytest.fixture(params=DATABASES)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is migrated and empty."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("blank_postgres")
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(EMPTY)
        return url
    path = shutil.copy(request.getfixturevalue("blank_sqlite"), tmp_path / "ledger.db")
    return f"sqlite:///{path}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """A ledger that is migrated and empty."""
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


class FakeClock:
    """Both clocks of `celeriac.clock`, standing still until `advance`."""

    def __init__(self) -> None:
        self._real = clock.micros
        self._monotonic = 1_000.0
        self._micros = clock.micros()

    def monotonic(self) -> float:
        return self._monotonic

    def micros(self, moment: datetime | None = None) -> int:
        return self._micros if moment is None else self._real(moment)

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._micros += int(seconds * 1_000_000)


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Time that passes only by `advance`."""
    fake = FakeClock()
    monkeypatch.setattr(clock, "monotonic", fake.monotonic)
    monkeypatch.setattr(clock, "micros", fake.micros)
    return fake


def wait_until(happened: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for something that another thread or process does; fail with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"Still not so after {seconds:.0f} s: {what}")
        time.sleep(0.005)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    """The one way to wait for real threads and processes."""
    return wait_until
