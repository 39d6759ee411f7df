"""Batches: up to a thousand jobs in one request, all or nothing, and how far they are together.

Everything that is wrong with any of them is told at once, by its place in the list. The JSON
of so many is read and written beside the event loop. Next: `ledger/batches.py`.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from celeriac.access import Principal
from celeriac.clock import rfc3339
from celeriac.errors import BatchNotFound, Fault, InvalidRequest, TaskNotAllowed, UnknownTask
from celeriac.jobs import new_id
from celeriac.ledger import batches
from celeriac.ledger.batches import Batch, BatchReceipt, BatchSubmission
from celeriac.web.api import PREFIX
from celeriac.web.api.bodies import explained, parsed, read_json
from celeriac.web.api.jobs import answer, is_id
from celeriac.web.api.queries import NoQuery
from celeriac.web.api.requests import JobBody, body_of, check_key, submission_of
from celeriac.web.api.shapes import JobShape, fresh_shape, job_shape
from celeriac.web.auth import header
from celeriac.web.site import Site, caller, site

MOST = 1000


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Requests for up to 1,000 jobs: all are accepted, or none."""

    jobs: Annotated[list[JobBody], msgspec.Meta(min_length=1, max_length=MOST)]


class BatchShape(msgspec.Struct):
    """A batch. `size` is how many jobs it made, `done` how many of them have ended, `progress` their share."""

    id: str
    owner: str
    size: int
    counts: dict[str, int]
    done: int
    progress: float
    finished: bool
    created_at: str | None


class BatchJobs(msgspec.Struct):
    """A batch that was accepted, and its jobs in the order of the request."""

    batch: BatchShape
    jobs: list[JobShape]


_decode = msgspec.json.Decoder(BatchBody).decode
_encode = msgspec.json.Encoder().encode


def add(app: FastAPI) -> None:
    """Add the route that looks at a batch."""
    app.get(f"{PREFIX}/batches/{{id}}")(batch)


def routes(site: Site) -> list[BaseRoute]:
    """Return the route that accepts batches."""
    return [Route(f"{PREFIX}/jobs/batch", AcceptBatch(site), methods=["POST"])]


def batch(request: Request, id: str, query: Annotated[NoQuery, Query()]) -> Response:
    """Look at a batch and how far its jobs have come together."""
    if not is_id(id):
        raise BatchNotFound(id[:255])
    return answer(_shape(batches.batch(site(request).ledger, caller(request), id)))


class AcceptBatch:
    """Answers 202 with the batch and its jobs after the one commit that holds them all."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = await read_json(scope, receive, self._site.settings.max_body_bytes)
        principal: Principal = scope["principal"]
        asked = await asyncio.to_thread(self._asked, scope, body, principal)
        receipt: BatchReceipt = await self._site.do(batches.submit_batch, asked)
        answer = await asyncio.to_thread(self._known if receipt.replayed else self._fresh, principal, asked, receipt)
        headers = {"Location": f"{PREFIX}/batches/{receipt.id}"}
        if receipt.replayed:
            headers["Idempotency-Replayed"] = "true"
        await Response(answer, 202, headers, "application/json")(scope, receive, send)

    def _asked(self, scope: Scope, body: bytes, principal: Principal) -> BatchSubmission:
        key, faults, id = header(scope, b"idempotency-key"), list[Fault](), new_id()
        if key is not None:
            check_key(key, faults)
        submissions = []
        for path, asked, wrong in _jobs(body, faults):
            try:
                submissions.append(submission_of(self._site.tasks, principal, asked, wrong, batch=id))
            except TaskNotAllowed as error:
                raise TaskNotAllowed(asked.task, principal.tasks, f"{path}/task") from error
            except (InvalidRequest, UnknownTask) as error:
                faults += (Fault(path + fault.path, fault.message) for fault in error.faults)
        if faults:
            raise InvalidRequest.of(faults)
        fingerprint = None if key is None else hashlib.sha256(body).hexdigest()
        return BatchSubmission(id, principal.owner, tuple(submissions), key, fingerprint)

    def _fresh(self, principal: Principal, asked: BatchSubmission, receipt: BatchReceipt) -> bytes:
        tasks, counts, jobs = self._site.tasks, dict[str, int](), []
        duplicates = [one.id for one in receipt.receipts if one.duplicate]
        known = batches.these(self._site.ledger, principal, duplicates) if duplicates else {}
        for submission, one in zip(asked.submissions, receipt.receipts, strict=True):
            if one.id in known:
                jobs.append(job_shape(known[one.id], tasks))
            else:
                jobs.append(fresh_shape(submission, one, tasks))
            if not one.duplicate:
                counts[one.state] = counts.get(one.state, 0) + 1
        made = Batch(receipt.id, asked.owner, sum(counts.values()), counts, receipt.created_at)
        return _encode(BatchJobs(_shape(made), jobs))

    def _known(self, principal: Principal, asked: BatchSubmission, receipt: BatchReceipt) -> bytes:
        ledger = self._site.ledger
        jobs = batches.jobs_of(ledger, principal, receipt.id)
        known = batches.batch(ledger, principal, receipt.id)
        return _encode(BatchJobs(_shape(known), [job_shape(job, self._site.tasks) for job in jobs]))


def _jobs(body: bytes, faults: list[Fault]) -> Iterator[tuple[str, JobBody, list[Fault]]]:
    """Go through the requests of a body with their paths; what is wrong with the body itself joins the faults."""
    try:
        str(body, "utf-8")  # msgspec looks only at what it decodes, and `args` is not
        for place, asked in enumerate(_decode(body).jobs):
            yield f"/jobs/{place}", asked, []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for place, item in enumerate(_items(parsed(body), faults)):
            good, wrong = explained(item, JobBody)
            yield f"/jobs/{place}", body_of(good), wrong


def _items(document: Any, faults: list[Fault]) -> list[Any]:
    if not isinstance(document, dict):
        faults.append(Fault("", "must be an object"))
        return []
    faults += (
        Fault(f"/{name}", "is not a field here; the only one is jobs") for name in document.keys() - {"jobs"}
    )  # fmt: skip
    items = document.get("jobs")
    if not isinstance(items, list):
        faults.append(Fault("/jobs", "must be a list" if "jobs" in document else "is missing"))
        return []
    if not 1 <= len(items) <= MOST:
        faults.append(Fault("/jobs", f"holds {len(items):,} jobs; a batch takes 1 to {MOST:,}"))
        return []
    return items


def _shape(batch: Batch) -> BatchShape:
    progress = batch.done / batch.size if batch.size else 1.0
    return BatchShape(
        batch.id, batch.owner, batch.size, batch.counts, batch.done, progress, batch.done == batch.size,
        rfc3339(batch.created_at),
    )  # fmt: skip
