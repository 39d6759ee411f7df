"""An observed app's own settings for its broker and its results: where Celery loses jobs, or runs them twice.

Looks of `celeriac check` at apps in mode observe; in mode own none of this matters. See docs/coming-from-celery.md.
"""

from collections.abc import Callable, Iterator
from typing import Any

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app import Celeriac
from celeriac.jobs import Filter
from celeriac.ledger import Ledger, read
from celeriac.states import State

Found = Iterator[tuple[str, str]]
VISIBILITY_SECONDS = 3600  # kombu's default
ENDLESS = float("inf")
SHOWN = 5
LOOKED_AT = 1_000


def longest(app: Celeriac) -> float:
    """Return the longest time limit of a task that is acknowledged late; infinite when one has none."""
    late = [task for task in _tasks(app) if task.acks_late]
    return max((float(task.time_limit or app.conf.task_time_limit or ENDLESS) for task in late), default=0.0)


def visibility(app: Celeriac, ledger: Ledger | None) -> Found:
    """Redis gives a message out again that is not acknowledged in time: a long task, or one with a late ETA."""
    if _scheme(app.conf.broker_url) != "redis":
        return
    seconds = float((app.conf.broker_transport_options or {}).get("visibility_timeout", VISIBILITY_SECONDS))
    limit, waits = longest(app), _longest_wait(ledger)
    set_it = "Set it above that in broker_transport_options"
    if limit > seconds:
        told = "have no time limit" if limit == ENDLESS else f"may run {limit:,.0f} s"
        yield "warning", f"visibility_timeout is {seconds:,.0f} s, and tasks with acks_late {told}: run twice. {set_it}"
    if waits > seconds:
        yield "warning", f"visibility_timeout is {seconds:,.0f} s, and jobs wait {waits:,.0f} s: run twice. {set_it}"
    if max(limit, waits) <= seconds:
        yield "fine", f"visibility_timeout is {seconds:,.0f} s, longer than tasks run and jobs wait"


def acknowledgement(app: Celeriac, ledger: Ledger | None) -> Found:
    """A late acknowledgement without reject_on_worker_lost is sent for a killed child as well."""
    half = [task.name for task in _tasks(app) if task.acks_late and not task.reject_on_worker_lost]
    if half:
        yield (
            "warning",
            f"lost with a killed child though acks_late is set: {_some(half)}. Set reject_on_worker_lost too",
        )
    else:
        yield "fine", "every task that is acknowledged late comes back when its child is killed"


def prefetch(app: Celeriac, ledger: Ledger | None) -> Found:
    """What a worker has taken ahead waits behind what it runs."""
    ahead = app.conf.worker_prefetch_multiplier
    if ahead == 1:
        yield "fine", "worker_prefetch_multiplier is 1"
    else:
        yield (
            "warning",
            f"worker_prefetch_multiplier is {ahead}: jobs wait behind long ones while others idle. Set it to 1",
        )


def confirms(app: Celeriac, ledger: Ledger | None) -> Found:
    """Without confirmations RabbitMQ may lose what a producer believes sent."""
    if _scheme(app.conf.broker_url) != "amqp":
        return
    if (app.conf.broker_transport_options or {}).get("confirm_publish"):
        yield "fine", "publishes are confirmed"
    else:
        what = "a message that RabbitMQ did not take is lost unseen"
        yield "warning", f"{what}. Set broker_transport_options = {{'confirm_publish': True}}"


def results(app: Celeriac, ledger: Ledger | None) -> Found:
    """A Redis that evicts forgets results; so does one that keeps them for a short time."""
    url = str(app.conf.result_backend or "")
    if not url.startswith(("redis://", "rediss://")):
        yield "fine", "results are not in a Redis" if url else "results are not kept"
        return
    from celeriac.broker.redis_facts import redis_facts

    policy = redis_facts(url, ()).info.get("maxmemory_policy")
    if policy in (None, "noeviction", "volatile-ttl"):
        yield "fine", "the Redis of the results does not evict them before their time"
    else:
        what = (
            f"the Redis of the results has maxmemory-policy {policy}: a chord waits for ever for one that was evicted"
        )
        yield "warning", f"{what}. Set noeviction"


def tracking(app: Celeriac, ledger: Ledger | None) -> Found:
    """Without it `AsyncResult` cannot tell a running job from a waiting or an unknown one."""
    if app.conf.task_track_started:
        yield "fine", "task_track_started is set"
    else:
        yield (
            "warning",
            "task_track_started is off: `AsyncResult` says PENDING of a job that runs. The ledger knows better",
        )


def _tasks(app: Celeriac) -> list[Any]:
    return [task for name, task in sorted(app.tasks.items()) if not name.startswith("celery.")]


def _scheme(url: Any) -> str:
    """Return the kind of an app's broker; without any Celery takes RabbitMQ."""
    first = url[0] if isinstance(url, (list, tuple)) and url else url
    scheme = str(first or "amqp").partition(":")[0]
    return {"rediss": "redis", "amqps": "amqp", "pyamqp": "amqp"}.get(scheme, scheme)


def _longest_wait(ledger: Ledger | None) -> float:
    """Return for how many seconds an observed job was sent ahead of its time, as far as the newest ones tell."""
    if ledger is None:
        return 0.0
    jobs, _ = read.page(ledger, SYSTEM, Filter(states=(State.SCHEDULED,)), None, LOOKED_AT)
    now = clock.micros()
    return max(((job.run_at or now) - job.created_at for job in jobs if job.observed), default=0) / 1_000_000


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


CHECKS: dict[str, Callable[[Celeriac, Ledger | None], Found]] = {
    "celery-visibility": visibility, "celery-acknowledgement": acknowledgement, "celery-prefetch": prefetch,
    "celery-confirms": confirms, "celery-results": results, "celery-tracking": tracking,
}  # fmt: skip
