"""What a Redis says of itself, for `celeriac check`: settings and state as they are, judged elsewhere.

Only reads. Called by cli/checks/redis.py, for our own broker and for that of an observed app.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from celeriac.broker import unusable
from celeriac.settings import LOOPBACK

_SETTINGS = ("save", "appendfsync", "protected-mode", "timeout")
_SAMPLE = 1_000
# Keys of ours, of kombu and of Celery's result backend.
_KNOWN = ("celeriac:", "_kombu.", "unacked", "celery-task-meta-", "_celery", "chord-unlock")


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """`settings` holds None for what the server does not tell; `strange` counts keys of others in a sample.

    `open` says that it lets in who gives no password, `near` that it is on this machine.
    """

    info: dict[str, Any]
    settings: dict[str, str | None]
    seconds: float  # how long an answer takes
    strange: int
    open: bool
    near: bool


def redis_facts(url: str, queues: Collection[str]) -> RedisFacts:
    """Ask a server. Raises CannotStart."""
    near = (urlsplit(url).hostname or LOOPBACK[0]) in LOOPBACK
    try:
        with _client(url) as client:
            client.ping()
            info = dict(client.info("all"))
            told = _settings(client), _latency(client), _strange(client, queues)
            return RedisFacts(info, *told, open=_lets_in_anybody(url), near=near)
    except (redis.RedisError, OSError, ValueError) as error:
        raise unusable(url, error) from None


def _client(url: str) -> Any:
    return redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=5, decode_responses=True, protocol=2)


def _lets_in_anybody(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with _client(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))) as stranger:
            return bool(stranger.ping())
    except redis.RedisError:
        return False


def _settings(client: Any) -> dict[str, str | None]:
    told = dict.fromkeys(_SETTINGS)
    for name in told:
        try:
            told[name] = client.config_get(name).get(name)
        except redis.ResponseError:  # a hosted one does not let its customers look
            continue
    return told


def _latency(client: Any) -> float:
    times = []
    for _ in range(5):
        began = time.monotonic()
        client.ping()
        times.append(time.monotonic() - began)
    return sorted(times)[2]


def _strange(client: Any, queues: Collection[str]) -> int:
    names = {name.partition("\x06\x16")[0] for name in queues}
    keys = islice(client.scan_iter(count=_SAMPLE), _SAMPLE)
    return sum(not key.startswith(_KNOWN) and key.partition("\x06\x16")[0] not in names for key in keys)
