"""POST /jobs: a request becomes a submission, and is answered once it is committed.

The hot path. Plain ASGI; arguments stay the bytes they came as; concurrent requests share one
commit; the answer is computed from what was written. Next: `ledger/moves/submit.py`.
"""

import asyncio
import hashlib
import re
from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from celeriac import clock
from celeriac.access import Principal
from celeriac.app import JobRequest
from celeriac.errors import Fault, InvalidArguments, InvalidRequest, UnknownTask
from celeriac.jobs import Receipt, Submission
from celeriac.ledger import read, submit
from celeriac.web.api import PREFIX
from celeriac.web.api.bodies import explain, read_json
from celeriac.web.api.moments import FAR, future
from celeriac.web.api.shapes import fresh_shape, job_shape
from celeriac.web.auth import header
from celeriac.web.site import Site

# Above this, checking the arguments takes milliseconds, which the event loop does not have.
LARGE_BODY = 32 * 1024

Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class JobBody(msgspec.Struct, forbid_unknown_fields=True):
    """A request to run a task. `args` is an object by parameter name, or an array."""

    task: str
    args: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    queue: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    run_at: str | None = None
    delay: Annotated[float, msgspec.Meta(ge=0)] | None = None
    expires_at: str | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    tags: Annotated[list[Tag], msgspec.Meta(max_length=20)] = msgspec.field(default_factory=list)


_decode = msgspec.json.Decoder(JobBody).decode
_encode = msgspec.json.Encoder().encode
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


def routes(site: Site) -> list[BaseRoute]:
    """Return the route that accepts jobs."""
    return [Route(f"{PREFIX}/jobs", Accept(site), methods=["POST"])]


class Accept:
    """Answers 202 with the job after the commit, and not before."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = await read_json(scope, receive, self._site.settings.max_body_bytes)
        principal: Principal = scope["principal"]
        large = len(body) > LARGE_BODY
        if large:
            submission = await asyncio.to_thread(self._submission, scope, body, principal)
        else:
            submission = self._submission(scope, body, principal)
        receipt: Receipt = await self._site.do(submit, submission)
        if receipt.replayed:
            answer = await asyncio.to_thread(self._known, principal, receipt)
        elif large:
            answer = await asyncio.to_thread(self._fresh, submission, receipt)
        else:
            answer = self._fresh(submission, receipt)
        await _send(send, receipt, answer)

    def _fresh(self, submission: Submission, receipt: Receipt) -> bytes:
        return _encode(fresh_shape(submission, receipt, self._site.tasks))

    def _known(self, principal: Principal, receipt: Receipt) -> bytes:
        return _encode(job_shape(read.job(self._site.ledger, principal, receipt.id), self._site.tasks))

    def _submission(self, scope: Scope, body: bytes, principal: Principal) -> Submission:
        """Check everything about a request before it costs the ledger anything; all faults are told at once."""
        asked, faults = _asked(body)
        request = _request(asked, faults)
        key = header(scope, b"idempotency-key")
        if key is not None:
            if not _VISIBLE.fullmatch(key):
                faults.append(Fault("Idempotency-Key", "must be 1 to 255 visible characters without spaces"))
            request = replace(request, idempotency_key=key, fingerprint=hashlib.sha256(body).hexdigest())
        if not faults:
            return self._checked(request, principal.owner)
        if asked.task:
            try:
                self._checked(request, principal.owner)
            except InvalidRequest as error:
                faults += error.faults
            except UnknownTask as error:
                faults += error.faults
        raise InvalidRequest.of(faults)

    def _checked(self, request: JobRequest, owner: str) -> Submission:
        try:
            return self._site.tasks.submission(request, owner)
        except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError) as error:
            raise InvalidArguments.of([Fault("/args", f"cannot be kept: {error}")]) from None


def _asked(body: bytes) -> tuple[JobBody, list[Fault]]:
    try:
        str(body, "utf-8")  # msgspec looks only at what it decodes, and `args` is not
        return _decode(body), []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        good, faults = explain(body, JobBody)
        return JobBody(**{"task": "", **good}), faults or [Fault("", "cannot be read")]


def _request(asked: JobBody, faults: list[Fault]) -> JobRequest:
    """Make a request of a body and add what is wrong with its values to the faults."""
    run_at = expires_at = None
    if asked.run_at is not None or asked.delay or asked.expires_at is not None:
        run_at, expires_at = _times(asked, faults)
    for place, tag in enumerate(asked.tags):
        if "," in tag or "\0" in tag:
            faults.append(Fault(f"/tags/{place}", "must not hold a comma, which separates tags in a filter, nor NUL"))
    if asked.queue is not None and "\0" in asked.queue:
        faults.append(Fault("/queue", "must not hold NUL"))
    return JobRequest(
        asked.task, bytes(asked.args), asked.queue, asked.priority, run_at, expires_at, asked.max_attempts,
        tuple(dict.fromkeys(asked.tags)) if asked.tags else (),
    )  # fmt: skip


def _times(asked: JobBody, faults: list[Fault]) -> tuple[int | None, int | None]:
    now = clock.micros()
    times: dict[str, int | None] = {"run_at": None, "expires_at": None}
    for name, text in (("run_at", asked.run_at), ("expires_at", asked.expires_at)):
        if text is not None:
            try:
                times[name] = future(text, now)
            except ValueError as error:
                faults.append(Fault(f"/{name}", str(error)))
    run_at, expires_at = times["run_at"], times["expires_at"]
    if asked.delay is not None:
        if asked.run_at is not None:
            faults.append(Fault("/delay", "cannot be given together with run_at"))
        elif asked.delay > FAR.total_seconds():
            faults.append(Fault("/delay", "is more than 100 years"))
        elif asked.delay:
            run_at = now + int(asked.delay * 1_000_000)
    if expires_at is not None and expires_at <= max(run_at or 0, now):
        faults.append(Fault("/expires_at", "is not after the time at which the job may run"))
    return run_at, expires_at


async def _send(send: Send, receipt: Receipt, answer: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
        (b"location", f"{PREFIX}/jobs/{quote(receipt.id, safe='')}".encode()),
    ]
    if receipt.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
