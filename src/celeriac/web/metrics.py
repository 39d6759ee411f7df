"""Figures for Prometheus at `/metrics`: of this web process, and of the ledger all processes share.

Requests, commits and the event loop's lag are counted by each web process for itself; gauges of
jobs, queues and workers come from the ledger, the same from every process. Counting costs a
request about a microsecond; the library is asked only for the text.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from celeriac.access import SYSTEM
from celeriac.broker import Publisher
from celeriac.clock import micros
from celeriac.instance import publisher_of
from celeriac.ledger.stats import Stats, stats
from celeriac.states import State

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from celeriac.web.site import Site

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LAG_SECONDS = 0.5


class Durations:
    """How many took how long, in buckets."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus wants them, each with all below it."""
        total, rows = 0, []
        for bound, number in zip([*BOUNDS, "+Inf"], self.buckets, strict=True):
            total += number
            rows.append((str(bound), float(total)))
        return rows


class Metrics:
    """What one web process counts; lives on its event loop."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], Durations] = {}  # by route and status
        self.moves: Counter[str] = Counter()
        self.writes = Durations()
        self.lag = 0.0  # the longest since it was last asked
        self._timer: asyncio.TimerHandle | None = None

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        durations = self.requests.get((route, status))
        if durations is None:
            durations = self.requests[route, status] = Durations()
        durations.add(seconds)

    def start(self) -> None:
        """Begin to watch the event loop."""
        due = time.perf_counter() + LAG_SECONDS
        self._timer = asyncio.get_running_loop().call_later(LAG_SECONDS, self._look, due)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, due: float) -> None:
        self.lag = max(self.lag, time.perf_counter() - due)
        self.start()


def routes(site: "Site") -> list[BaseRoute]:
    """Return the route that Prometheus asks."""

    async def metrics(request: Request) -> Response:
        seen = await asyncio.to_thread(stats, site.ledger, SYSTEM, 1)
        lag, site.metrics.lag = site.metrics.lag, 0.0
        families = [*_of_process(site, lag), *_of_ledger(seen), *_of_broker(publisher_of(site.ledger), seen)]
        text = await asyncio.to_thread(exposition, families)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/metrics", metrics, methods=["GET"])]


def exposition(families: Iterable["Metric"]) -> bytes:
    """Return figures as the text that Prometheus reads."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Once:
        def collect(self) -> Iterable["Metric"]:
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    return generate_latest(registry)


def _of_process(site: "Site", lag: float) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    metrics = site.metrics
    told = "Requests by route and status, and how long their answers took, in this process."
    family = HistogramMetricFamily("celeriac_http_request_seconds", told, labels=["method", "route", "status"])
    for (route, status), taken in list(metrics.requests.items()):
        method, _, path = route.partition(" ")
        family.add_metric([method, path, str(status)], taken.cumulative(), taken.seconds)
    yield family
    yield _gauge("celeriac_event_loop_lag_seconds", "Longest delay of this process's event loop since last asked.", lag)
    moves = CounterMetricFamily("celeriac_moves", "Moves that requests to this process made.", labels=["move"])
    for move, number in list(metrics.moves.items()):
        moves.add_metric([move], number)
    yield moves
    yield CounterMetricFamily("celeriac_commits", "Commits of this process's requests.", value=site.group.commits)
    told = "How long moves of this process's requests waited for their commit."
    yield HistogramMetricFamily(
        "celeriac_ledger_write_seconds", told, buckets=metrics.writes.cumulative(), sum_value=metrics.writes.seconds
    )


def _of_ledger(seen: Stats) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    jobs = GaugeMetricFamily("celeriac_jobs", "Jobs by state and queue.", labels=["state", "queue"])
    ages = GaugeMetricFamily(
        "celeriac_queue_oldest_seconds", "Age of the oldest job that could start.", labels=["queue"]
    )
    paused = GaugeMetricFamily("celeriac_queue_paused", "Whether a queue is paused.", labels=["queue"])
    now = micros()
    for queue in seen.queues:
        for state in State:
            jobs.add_metric([state, queue.name], queue.counts.get(state, 0))
        oldest = queue.oldest_queued_at
        ages.add_metric([queue.name], 0 if oldest is None else max(now - oldest, 0) / 1_000_000)
        paused.add_metric([queue.name], int(queue.paused_at is not None))
    yield from (jobs, ages, paused)
    yield _gauge("celeriac_workers_online", "Workers that are alive.", seen.workers_online)
    yield _gauge("celeriac_workers_stuck", "Of those, the ones that do nothing though they could.", seen.workers_stuck)
    yield _gauge("celeriac_slots", "Jobs that the workers alive can run at a time.", seen.slots)
    yield _gauge("celeriac_finished_per_second", "Jobs that succeeded or failed, over 5 minutes.", seen.rate_per_second)


def _of_broker(publisher: Publisher | None, seen: Stats) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    if publisher is None:
        return
    yield _gauge("celeriac_broker_up", "Whether this process can reach the broker.", int(publisher.up))
    yield CounterMetricFamily("celeriac_hints", "Hints that this process sent to the broker.", value=publisher.sent)
    messages = GaugeMetricFamily("celeriac_broker_messages", "Messages that lay in the broker.", labels=["queue"])
    for queue, depth in sorted(publisher.depths.items()):
        messages.add_metric([queue], depth)
    yield messages
    publisher.fill({queue.name: 0 for queue in seen.queues if any(queue.counts.values())})  # for the next time


def _gauge(name: str, told: str, value: float) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, told, value=value)
