"""The four set-ups that everything must survive on: their servers, and a proxy in front of each.

`house` is the instance; its processes reach database and broker through the proxies, the test itself goes past them.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import postgres
import servers
from instance import Instance, instance
from nursery import Nursery
from proxy import Proxy, proxy

SETUPS = ("sqlite", "postgres", "rabbitmq", "redis")


@dataclass
class Setup:
    """One of them, running."""

    name: str
    house: Instance
    database: postgres.Server | None = None
    database_proxy: Proxy | None = None
    broker: servers.Server | None = None
    broker_proxy: Proxy | None = None


@contextlib.contextmanager
def setup(name: str, home: Path, nursery: Nursery | None = None, **environment: str) -> Iterator[Setup]:
    """Give a set-up with servers of its own; `rabbitmq` and `redis` have Postgres for a ledger."""
    with contextlib.ExitStack() as open_:
        environment.setdefault("app", "jobs_for_faults:app")
        made = Setup(name, None)  # type: ignore[arg-type]
        if name == "sqlite":
            url = ""
        else:
            made.database = open_.enter_context(postgres.private())
            made.database_proxy = open_.enter_context(proxy(made.database.port))
            url = made.database.conninfo()
            environment["CELERIAC_DATABASE_URL"] = made.database_proxy.before(url)
        if name in ("rabbitmq", "redis"):
            made.broker = open_.enter_context(servers.private(servers.BROKERS[name]))
            made.broker_proxy = open_.enter_context(proxy(made.broker.port))
            environment["CELERIAC_BROKER_URL"] = made.broker_proxy.before(made.broker.url)
        made.house = open_.enter_context(instance(home, database_url=url, nursery=nursery, **environment))
        yield made
