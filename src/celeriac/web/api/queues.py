"""Queues: look at them, pause and resume them.

Counts are exact and cost no scan. A queue nobody has used yet can be paused as well: what
comes to it then waits.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from celeriac.clock import rfc3339
from celeriac.errors import Fault, InvalidRequest, QueueNotFound
from celeriac.jobs import Queue
from celeriac.ledger import Ledger, Move, queues, read
from celeriac.web.api import PREFIX
from celeriac.web.api.jobs import answer
from celeriac.web.api.queries import NoQuery
from celeriac.web.site import site

NAME_LENGTH = 200


class QueueShape(msgspec.Struct):
    """A queue with the exact number of its jobs in each state, and how many workers online take from it."""

    name: str
    paused: bool
    paused_at: str | None
    counts: dict[str, int]
    oldest_queued_at: str | None
    workers: int


class QueuePage(msgspec.Struct):
    """Every queue."""

    queues: list[QueueShape]


def add(app: FastAPI) -> None:
    """Add the routes. A name may hold anything, slashes too, so the longer paths come first."""
    app.get(f"{PREFIX}/queues")(all_queues)
    app.put(f"{PREFIX}/queues/{{name:path}}/pause")(pause_queue)
    app.delete(f"{PREFIX}/queues/{{name:path}}/pause")(resume_queue)
    app.get(f"{PREFIX}/queues/{{name:path}}")(queue)


def all_queues(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """List the queues with the number of jobs in each state."""
    ledger = site(request).ledger
    return answer(QueuePage(queue_shapes(ledger, read.all_queues(ledger))))


def queue(request: Request, name: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Look at one queue."""
    if not _is_name(name):
        raise QueueNotFound(name)
    ledger = site(request).ledger
    return answer(queue_shapes(ledger, [queues.queue(ledger, name)])[0])


async def pause_queue(request: Request, name: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Pause a queue: it takes jobs, and workers take none from it. Jobs that run come to their end."""
    return await _command(request, name, queues.pause)


async def resume_queue(request: Request, name: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Resume a queue: workers take jobs from it again."""
    return await _command(request, name, queues.resume)


async def _command(request: Request, name: str, move: Move[str, None]) -> Response:
    if not _is_name(name):
        raise InvalidRequest.of([Fault("/name", f"must have 1 to {NAME_LENGTH} characters and no NUL")])
    await site(request).do(move, name)
    return answer(await asyncio.to_thread(_whole, site(request).ledger, name))


def _whole(ledger: Ledger, name: str) -> QueueShape:
    try:
        return queue_shapes(ledger, [queues.queue(ledger, name)])[0]
    except QueueNotFound:  # resumed, and neither a job nor a worker knows it
        return QueueShape(name, False, None, {}, None, 0)


def queue_shapes(ledger: Ledger, found: Sequence[Queue]) -> list[QueueShape]:
    """Return queues as the API shows them."""
    taking = Counter(name for worker in read.all_workers(ledger) if worker.online for name in worker.queues)
    return [
        QueueShape(
            queue.name, queue.paused_at is not None, rfc3339(queue.paused_at), queue.counts,
            rfc3339(queue.oldest_queued_at), taking[queue.name],
        )
        for queue in found
    ]  # fmt: skip


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_LENGTH and "\0" not in name
