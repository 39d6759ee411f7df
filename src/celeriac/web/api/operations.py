"""Operations on a filter: cancel or retry every job that matches, tracked until it is done.

The request only enters the operation; the keeper works it off and counts. It concerns the jobs
that exist now, and of those only what the caller may control.
"""

from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query
from msgspec import Meta
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from celeriac.clock import rfc3339
from celeriac.errors import Fault, InvalidRequest, OperationNotFound
from celeriac.jobs import Filter
from celeriac.ledger import operations
from celeriac.ledger.operations import Kind, Operation, Wanted
from celeriac.web.api import PREFIX
from celeriac.web.api.bodies import read_shape
from celeriac.web.api.jobs import answer, is_id
from celeriac.web.api.queries import JobFilter, NoQuery, OperationsQuery
from celeriac.web.problems import faults_of
from celeriac.web.site import caller, site


class OperationBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which jobs to cancel or retry."""

    filter: Annotated[dict[str, Any], Meta(description="What a list of jobs takes.")] = {}
    all: Annotated[bool, Meta(description="Has to be true when the filter is empty.")] = False


class OperationShape(msgspec.Struct):
    """A cancel or retry of every job that matches a filter: `matched` is `moved` plus `refused`."""

    id: str
    kind: Annotated[str, Meta(description="cancel or retry.")]
    filter: dict[str, Any]
    state: Annotated[str, Meta(description="running, then done.")]
    matched: Annotated[int, Meta(description="Jobs it has come to so far that match.")]
    moved: Annotated[int, Meta(description="Of these: cancelled, told to stop, or queued again.")]
    refused: Annotated[int, Meta(description="Of these: ended or moved on in the meantime, or not to be retried.")]
    owner: str
    created_at: str | None
    finished_at: str | None


class OperationPage(msgspec.Struct):
    """A page of operations, newest first; `after` leads to the next one and is null on the last."""

    operations: list[OperationShape]
    after: str | None


def add(app: FastAPI) -> None:
    """Add the routes."""
    app.post(f"{PREFIX}/cancellations", status_code=202)(cancel_all)
    app.post(f"{PREFIX}/retries", status_code=202)(retry_all)
    app.get(f"{PREFIX}/operations")(all_operations)
    app.get(f"{PREFIX}/operations/{{id}}")(operation)


async def cancel_all(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Cancel every job that matches a filter, of those that exist now and that you may control."""
    return await _begin(request, Kind.CANCEL)


async def retry_all(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Send every failed or cancelled job that matches a filter through again."""
    return await _begin(request, Kind.RETRY)


def all_operations(request: Request, query: Annotated[OperationsQuery, Query()]) -> Response:
    """List operations, newest first."""
    found, after = operations.page(site(request).ledger, caller(request), query.after, query.limit)
    return answer(OperationPage([_shape(operation) for operation in found], after))


def operation(request: Request, id: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Look at an operation and how far it has come."""
    if not is_id(id):
        raise OperationNotFound(id)
    return answer(_shape(operations.operation(site(request).ledger, caller(request), id)))


async def _begin(request: Request, kind: Kind) -> Response:
    limit = site(request).settings.max_body_bytes
    body = await read_shape(request.scope, request.receive, limit, OperationBody)
    wanted = Wanted(kind, caller(request), _filter(body))
    begun: Operation = await site(request).do(operations.begin, wanted)
    response = answer(_shape(begun), 202)
    response.headers["Location"] = f"{PREFIX}/operations/{begun.id}"
    return response


def _filter(body: OperationBody) -> Filter:
    try:
        filter = JobFilter.model_validate(body.filter).filter()
    except ValidationError as error:
        raise InvalidRequest.of(faults_of(error.errors(), "/filter")) from None
    if filter == Filter() and not body.all:
        raise InvalidRequest.of([Fault("/filter", 'is empty, which means every job; say so with "all": true')])
    return filter


def _shape(operation: Operation) -> OperationShape:
    return OperationShape(
        operation.id, operation.kind, _asked(operation.filter),
        "running" if operation.finished_at is None else "done", operation.matched, operation.moved, operation.refused,
        operation.principal.owner, rfc3339(operation.created_at), rfc3339(operation.finished_at),
    )  # fmt: skip


def _asked(filter: Filter) -> dict[str, Any]:
    """Return a filter as it was asked for: fields in the singular, only those that narrow it."""
    names = {"states": "state", "tasks": "task", "queues": "queue", "owners": "owner", "tags": "tag",
             "batches": "batch"}  # fmt: skip
    given = {names.get(name, name): value for name, value in asdict(filter).items() if value}
    return {name: rfc3339(value) if name in ("since", "until") else value for name, value in given.items()}
