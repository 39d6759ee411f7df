"""Jobs: look at one, wait for its end, list them, read a history, cancel, send through again.

Somebody else's job looks like one that does not exist, on every one of these routes. Waiting
holds no thread. New jobs come in through `submissions.py`.
"""

import asyncio
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from celeriac.errors import JobNotFound
from celeriac.jobs import Kind
from celeriac.ledger import Asked, Move, cancel, read, reopen
from celeriac.states import State, is_final
from celeriac.web.api import PREFIX
from celeriac.web.api.queries import EventsQuery, JobQuery, JobsQuery, NoQuery
from celeriac.web.api.shapes import CancelledShape, EventPage, JobPage, event_shape, job_shape
from celeriac.web.site import caller, site

ID_LENGTH = 255


def add(app: FastAPI) -> None:
    """Add the routes. An id may hold anything, slashes too, so the longer paths come first."""
    app.get(f"{PREFIX}/jobs")(jobs)
    app.get(f"{PREFIX}/jobs/{{id:path}}/events")(events)
    app.put(f"{PREFIX}/jobs/{{id:path}}/cancellation", status_code=202)(cancel_job)
    app.post(f"{PREFIX}/jobs/{{id:path}}/retries", status_code=202)(retry_job)
    app.get(f"{PREFIX}/jobs/{{id:path}}")(job)


def jobs(request: Request, query: Annotated[JobsQuery, Query()]) -> Response:
    """List jobs, newest first, with previews of arguments and results."""
    found, after = read.page(site(request).ledger, caller(request), query.filter(), query.after, query.limit)
    return answer(JobPage([job_shape(job, site(request).tasks) for job in found], after))


async def job(request: Request, id: str, query: Annotated[JobQuery, Query()]) -> Response:
    """Look at one job. With `wait` the answer comes as soon as it has ended, or else when the time is over."""
    _check(id)
    if query.wait:
        await _wait(request, id, query.wait)
    return await asyncio.to_thread(_whole, request, id)


def events(request: Request, id: str, query: Annotated[EventsQuery, Query()]) -> Response:
    """Read the history of a job, in order."""
    _check(id)
    lines = read.history(site(request).ledger, caller(request), id, query.after, query.limit + 1)
    after = lines[query.limit - 1].number if len(lines) > query.limit else None
    return answer(EventPage([event_shape(line) for line in lines[: query.limit]], after))


async def cancel_job(request: Request, id: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Cancel a job. One that waits is cancelled at once and never starts; a running one is told to stop.

    In a pool of threads, or solo (`cooperative`), that reaches it where it reports progress, and nowhere else.
    """
    await _ask(request, id, cancel)
    return await asyncio.to_thread(_cancelled, request, id)


async def retry_job(request: Request, id: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Send a failed or cancelled job through again, under the same id."""
    await _ask(request, id, reopen)
    response = await asyncio.to_thread(_whole, request, id)
    response.status_code = 202
    return response


async def _ask(request: Request, id: str, move: Move[Asked, State]) -> None:
    _check(id)
    await site(request).do(move, Asked(caller(request), id))


def _cancelled(request: Request, id: str) -> Response:
    ledger = site(request).ledger
    job = read.job(ledger, caller(request), id)
    last = read.history(ledger, caller(request), id, job.number - 1, 1)
    data = msgspec.json.decode(last[0].data) if last and last[0].kind == Kind.CANCELLED and last[0].data else {}
    shape = msgspec.structs.asdict(job_shape(job, site(request).tasks))
    cooperative = job.state is State.RUNNING and job.worker is not None and read.is_cooperative(ledger, job.worker)
    also, number = data.get("also", []), data.get("also_count", 0)
    return answer(CancelledShape(**shape, also=also, also_count=number, cooperative=cooperative), 202)


async def _wait(request: Request, id: str, seconds: float) -> None:
    """Come back when the job has ended, the time is over, the client is gone or the process stops."""
    with site(request).hub.watching(id) as ended:
        seen = await asyncio.to_thread(read.summary, site(request).ledger, caller(request), id)
        if is_final(seen.state):
            return
        gone = asyncio.ensure_future(_disconnect(request.receive))
        try:
            await asyncio.wait({ended, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _whole(request: Request, id: str) -> Response:
    job = read.job(site(request).ledger, caller(request), id)
    return answer(job_shape(job, site(request).tasks))


def _check(id: str) -> None:
    """Refuse what cannot be an id before a database is asked for it."""
    if not is_id(id):
        raise JobNotFound(id[:ID_LENGTH])


def is_id(id: str) -> bool:
    """Say whether something can have this id at all; databases do not take every text."""
    return len(id) <= ID_LENGTH and "\0" not in id


def answer(shape: msgspec.Struct, status: int = 200) -> Response:
    """Return a shape as a JSON response."""
    return Response(msgspec.json.encode(shape), status, media_type="application/json")
