"""One worker for each configuration of the table, started when its first idiom is tried."""

import shutil

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


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids="-".join)
def here(request, redis, tmp_path_factory) -> World:
    mode, pool = request.param
    home = tmp_path_factory.mktemp(f"{mode}-{pool}")
    with world(mode, pool, home, redis, CONFIGURATIONS.index(request.param)) as made:
        yield made
