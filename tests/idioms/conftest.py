"""One worker for each configuration of the table, started when its first idiom is tried.

The ledger of the six is on SQLite; own with prefork is tried on Postgres as well.
"""

import os
import shutil

import postgres
import pytest
from postgres import required
from world import CONFIGURATIONS, World, redis_server, world

for chapter in ("calling", "writing", "canvas", "results", "operating"):
    pytest.register_assert_rewrite(f"idioms_{chapter}")


@pytest.fixture(scope="session")
def redis(tmp_path_factory) -> str:
    if shutil.which("redis-server") is None:
        (pytest.fail if required() else pytest.skip)("Redis is not installed")
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


WORLDS = [
    *(pytest.param((*each, "sqlite"), id="-".join(each)) for each in CONFIGURATIONS),
    pytest.param(("own", "prefork", "postgres"), id="own-prefork-postgres", marks=pytest.mark.postgres),
]


@pytest.fixture(scope="module", params=WORLDS)
def here(request, redis, tmp_path_factory) -> World:
    mode, pool, database = request.param
    home = tmp_path_factory.mktemp(f"{mode}-{pool}-{database}")
    url, number = "", len(CONFIGURATIONS)
    if database == "postgres":
        request.getfixturevalue("blank_postgres")
        url = postgres.server().create(f"idioms_{os.urandom(4).hex()}")
    else:
        number = CONFIGURATIONS.index((mode, pool))
    with world(mode, pool, home, redis, number, url) as made:
        yield made
