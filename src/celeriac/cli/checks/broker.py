"""The broker: CELERIAC_BROKER_URL, or that of an app which is only observed; asked once, judged by many looks.

Looks of `celeriac check`; redis.py and rabbitmq.py say what may be wrong with the server, celery.py with an
observed app's own settings for it. A broker that does not answer is told once.
"""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from celeriac.app import Celeriac, Tasks
from celeriac.broker import check_package, shown
from celeriac.cli.checks import celery, rabbitmq, redis
from celeriac.cli.checks.app import loaded
from celeriac.cli.checks.cargo import HINTS, Cargo
from celeriac.cli.checks.database import existing
from celeriac.errors import CannotStart, CeleriacError
from celeriac.ledger import read
from celeriac.settings import Settings

Found = Iterator[tuple[str, str]]
_asked: list[
    tuple[Settings, Any]
] = []  # the newest settings a broker was asked for, and its facts or why there are none


def broker(settings: Settings) -> Found:
    """Which one there is, and whether it answers."""
    url = _url(settings)
    if url is None:
        yield "fine", "none: the ledger is the queue"
    elif _facts(settings) is None:
        yield "fine", f"{shown(url)} is neither RabbitMQ nor Redis, and cannot be looked at"
    else:
        whose = "CELERIAC_BROKER_URL" if settings.broker_url else "the observed app's"
        yield "fine", f"{shown(url)} answers ({whose})"


def _url(settings: Settings) -> str | None:
    observed = _observed(settings)
    if observed is None:
        return settings.broker_url or None
    with observed.connection_for_read() as connection:
        return str(connection.as_uri(include_password=True)).removeprefix("py")


def _observed(settings: Settings) -> Celeriac | None:
    """Return the app if its jobs are carried by a broker of its own."""
    try:
        found = loaded(settings.app)
    except CeleriacError:  # which is told elsewhere
        return None
    return found if found is not None and found.mode == "observe" else None


def _facts(settings: Settings) -> Any:
    """Return what the broker says of itself, None for one that we cannot ask. Raises CannotStart."""
    if not _asked or _asked[0][0] is not settings:
        try:
            facts = _ask(settings)
        except CannotStart as error:
            facts = error
        _asked[:] = [(settings, facts)]
    if isinstance(_asked[0][1], CannotStart):
        raise _asked[0][1]
    return _asked[0][1]


def _ask(settings: Settings) -> Any:
    url = _url(settings) or ""
    scheme = urlsplit(url).scheme
    if scheme in ("redis", "rediss"):
        check_package(url)
        from celeriac.broker.redis_facts import redis_facts

        return redis_facts(url, _queues(settings))
    if scheme in ("amqp", "amqps"):
        from celeriac.broker.rabbitmq_facts import rabbit_facts

        return rabbit_facts(url, _queues(settings), settings.broker_management_url)
    return None


def _queues(settings: Settings) -> list[str]:
    """Return the queues that the tasks lead to, and those that have jobs."""
    names = set()
    try:
        if (found := loaded(settings.app)) is not None:
            names |= set(found.amqp.queues) if found.mode == "observe" else set(Tasks(found).queues)
        if (ledger := existing(settings)) is not None:
            names |= {queue.name for queue in read.all_queues(ledger)}
    except CeleriacError:  # which is told elsewhere
        pass
    return sorted(names)


def _server(check: Callable[..., Found], kind: str) -> Callable[[Settings], Found]:
    """Return the look that judges the facts of a broker of this kind."""

    def look(settings: Settings) -> Found:
        if (_url(settings) or "").startswith(kind):
            observed = _observed(settings)
            yield from check(_facts(settings), Cargo("jobs", celery.longest(observed)) if observed else HINTS)

    return look


def _app(check: Callable[..., Found]) -> Callable[[Settings], Found]:
    def look(settings: Settings) -> Found:
        if (observed := _observed(settings)) is not None:
            yield from check(observed, existing(settings))

    return look


LOOKS = {
    "broker": broker,
    **{name: _server(check, "redis") for name, check in redis.CHECKS.items()},
    **{name: _server(check, "amqp") for name, check in rabbitmq.CHECKS.items()},
    **{name: _app(check) for name, check in celery.CHECKS.items()},
}
