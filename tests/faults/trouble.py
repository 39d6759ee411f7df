"""What befalls the processes and servers of a run and the ways between them; each returns when it is over.

`TROUBLES` lists them, by the set-ups on which they can happen. Used by run.py; its report calls them by these names.
"""

import contextlib
import random
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
from proxy import Proxy

from faults.cast import Cast
from faults.setups import Setup


@dataclass(frozen=True)
class Scene:
    """What a trouble may touch."""

    stage: Setup
    cast: Cast
    dice: random.Random
    hold: float  # how long a trouble lasts, as a factor: the short form is shorter

    def lasts(self, least: float, most: float) -> None:
        time.sleep(self.dice.uniform(least, most) * self.hold)


Trouble = Callable[[Scene], None]
TROUBLES: dict[str, dict[str, Trouble]] = defaultdict(dict)


def troubles(setup: str) -> dict[str, Trouble]:
    """Return what can befall a set-up."""
    found = {"sqlite": ["sqlite"], "postgres": ["postgres"]}.get(setup, ["postgres", "broker", setup])
    return {name: trouble for kind in ("any", *found) for name, trouble in TROUBLES[kind].items()}


def on(kind: str) -> Callable[[Trouble], Trouble]:
    def listed(trouble: Trouble) -> Trouble:
        TROUBLES[kind][trouble.__name__.replace("_", " ")] = trouble
        return trouble

    return listed


# Processes


@on("any")
def calm(scene: Scene) -> None:
    scene.lasts(1, 2)


@on("any")
def a_worker_stands_still_for_three_leases(scene: Scene) -> None:
    with scene.cast.frozen("worker"):
        scene.lasts(6, 7)


@on("any")
def a_keeper_stands_still_for_three_leases(scene: Scene) -> None:
    with scene.cast.frozen("keeper"):
        scene.lasts(5, 6)


@on("any")
def a_web_process_stands_still(scene: Scene) -> None:
    with scene.cast.frozen("web"):
        scene.lasts(2, 4)


@on("any")
def every_process_is_killed_at_once(scene: Scene) -> None:
    scene.cast.kill_all()


@on("any")
def rolling_restart(scene: Scene) -> None:
    for _ in range(3):
        scene.cast.restart_one()
        scene.lasts(0.3, 1)


# SQLite


@on("sqlite")
def another_program_holds_the_write_lock(scene: Scene) -> None:
    held = sqlite3.connect(scene.stage.house.home / "ledger.db", isolation_level=None, timeout=10)
    with contextlib.closing(held), contextlib.suppress(sqlite3.OperationalError):
        held.execute("BEGIN IMMEDIATE")
        scene.lasts(2, 7)
        held.execute("ROLLBACK")


@on("sqlite")
def a_reader_holds_an_old_snapshot_while_the_log_is_folded_in(scene: Scene) -> None:
    path = scene.stage.house.home / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as reader, contextlib.closing(sqlite3.connect(path)) as other:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM jobs").fetchone()
        scene.lasts(1, 3)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


# Postgres


@on("postgres")
def postgres_restarts_fast(scene: Scene) -> None:
    scene.stage.database.stop(signal.SIGINT)
    scene.lasts(0.2, 2)
    scene.stage.database.start()


@on("postgres")
def postgres_restarts_immediate(scene: Scene) -> None:
    scene.stage.database.stop(signal.SIGQUIT)
    scene.lasts(0.2, 1)
    scene.stage.database.start()


@on("postgres")
def backends_are_terminated_five_a_second(scene: Scene) -> None:
    with _admin(scene) as admin:
        until = time.monotonic() + scene.dice.uniform(4, 8) * scene.hold
        while time.monotonic() < until:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'celeriac%' ORDER BY random() LIMIT 1"
            )
            time.sleep(0.2)


@on("postgres")
def postgres_is_read_only(scene: Scene) -> None:
    with _admin(scene) as admin:
        for value in ("on", "off"):
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            admin.execute("SELECT pg_reload_conf()")
            if value == "on":
                scene.lasts(2, 5)
                admin.execute("SET default_transaction_read_only = off")


@on("postgres")
def somebodys_transaction_locks_rows_of_jobs_and_stays_idle(scene: Scene) -> None:
    with psycopg.connect(scene.stage.database.conninfo()) as holder:
        holder.execute("SELECT key FROM jobs WHERE state IN ('queued', 'running') ORDER BY key DESC LIMIT 5 FOR UPDATE")
        scene.lasts(2, 4)
        holder.rollback()


@on("postgres")
def four_readers_hold_old_snapshots(scene: Scene) -> None:
    with contextlib.ExitStack() as readers:
        for _ in range(4):
            reader = readers.enter_context(psycopg.connect(scene.stage.database.conninfo()))
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT COUNT(*) FROM jobs").fetchone()
        scene.lasts(3, 6)


@contextlib.contextmanager
def _admin(scene: Scene) -> Iterator[psycopg.Connection]:
    with psycopg.connect(scene.stage.database.conninfo("postgres"), autocommit=True) as admin:
        yield admin


# Brokers


@on("broker")
def the_broker_is_killed_and_comes_back(scene: Scene) -> None:
    scene.stage.broker.kill()
    scene.lasts(0.2, 4)
    scene.stage.broker.start()


@on("broker")
def the_broker_restarts(scene: Scene) -> None:
    scene.stage.broker.stop()
    scene.stage.broker.start()


@on("broker")
def the_broker_forgets_everything(scene: Scene) -> None:
    scene.stage.broker.wipe()


@on("broker")
def the_broker_stands_still(scene: Scene) -> None:
    scene.stage.broker.pause()
    try:
        scene.lasts(3, 6)
    finally:
        scene.stage.broker.resume()


@on("rabbitmq")
def rabbitmq_raises_its_memory_alarm(scene: Scene) -> None:
    scene.stage.broker.alarm(True)
    try:
        scene.lasts(3, 6)
    finally:
        scene.stage.broker.alarm(False)


@on("redis")
def redis_evicts_what_it_likes(scene: Scene) -> None:
    with contextlib.closing(scene.stage.broker.client()) as client:
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", "1mb")
        scene.lasts(2, 4)
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")


# The ways to them


def _slow(proxy: Proxy) -> None:
    proxy.latency, proxy.jitter = 0.1, 0.05


def _very_slow(proxy: Proxy) -> None:
    proxy.latency = 0.5


def _sliced(proxy: Proxy) -> None:
    proxy.slice = 1


def _thin(proxy: Proxy) -> None:
    proxy.rate = 50_000


def _cut(proxy: Proxy) -> None:
    proxy.cut_after = 5_000


TOXICS: dict[str, tuple[Callable[[Proxy], None], float, float]] = {
    "takes 100±50 ms": (_slow, 3, 6),
    "takes 500 ms": (_very_slow, 4, 6),
    "goes byte by byte": (_sliced, 3, 6),
    "has 50 kB a second": (_thin, 3, 5),
    "is cut in the midst of an answer": (_cut, 1, 2),
    "is reset": (Proxy.reset, 0.5, 1),
    "refuses": (Proxy.down, 1, 5),
    "is half open": (Proxy.half_open, 2, 8),
}


def _toxic(place: str, hurt: Callable[[Proxy], None], least: float, most: float) -> Trouble:
    def trouble(scene: Scene) -> None:
        proxy: Proxy = getattr(scene.stage, place)
        hurt(proxy)
        try:
            scene.lasts(least, most)
        finally:
            proxy.heal()

    return trouble


for _kind, _place, _told in (
    ("postgres", "database_proxy", "the way to Postgres"),
    ("broker", "broker_proxy", "the way to the broker"),
):
    for _name, _shape in TOXICS.items():
        TROUBLES[_kind][f"{_told} {_name}"] = _toxic(_place, *_shape)
