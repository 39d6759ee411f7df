"""POST /jobs: a request becomes a submission, and is answered once it is committed.

The hot path. Plain ASGI; arguments stay the bytes they came as; concurrent requests share one
commit; the answer is computed from what was written. Next: `ledger/moves/submit.py`.
"""

import asyncio
from urllib.parse import quote

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from celeriac.access import Principal
from celeriac.errors import Fault
from celeriac.jobs import Receipt, Submission
from celeriac.ledger import read, submit
from celeriac.web.api import PREFIX
from celeriac.web.api.bodies import explain, read_json
from celeriac.web.api.requests import JobBody, body_of, submission_of
from celeriac.web.api.shapes import fresh_shape, job_shape
from celeriac.web.auth import header
from celeriac.web.site import Site

# Above this, checking the arguments takes milliseconds, which the event loop does not have.
LARGE_BODY = 32 * 1024

_decode = msgspec.json.Decoder(JobBody).decode
_JOBS = f"{PREFIX}/jobs/".encode()
_encode = msgspec.json.Encoder().encode


def routes(site: Site) -> list[BaseRoute]:
    """Return the route that accepts jobs."""
    return [Route(f"{PREFIX}/jobs", Accept(site), methods=["POST"])]


class Accept:
    """Answers 202 with the job after the commit, and not before."""

    may_be_empty = False  # whether no body at all says something

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        limit = self._site.settings.max_body_bytes
        body = await read_json(scope, receive, limit, may_be_empty=self.may_be_empty)
        principal: Principal = scope["principal"]
        large = len(body) > LARGE_BODY
        if large:
            submission = await asyncio.to_thread(self.submission, scope, body, principal)
        else:
            submission = self.submission(scope, body, principal)
        receipt: Receipt = await self._site.do(submit, submission)
        if receipt.replayed or receipt.duplicate:
            answer = await asyncio.to_thread(self._known, principal, receipt)
        elif large:
            answer = await asyncio.to_thread(self._fresh, submission, receipt)
        else:
            answer = self._fresh(submission, receipt)
        await _send(send, receipt, answer)

    def submission(self, scope: Scope, body: bytes, principal: Principal) -> Submission:
        """Return what the request asks for. Raises TaskNotAllowed, UnknownTask, InvalidRequest, NotJson."""
        asked, faults = _asked(body)
        key = header(scope, b"idempotency-key")
        return submission_of(self._site.tasks, principal, asked, faults, key=key, fingerprint=body)

    def _fresh(self, submission: Submission, receipt: Receipt) -> bytes:
        return _encode(fresh_shape(submission, receipt, self._site.tasks))

    def _known(self, principal: Principal, receipt: Receipt) -> bytes:
        return _encode(job_shape(read.job(self._site.ledger, principal, receipt.id), self._site.tasks))


def _asked(body: bytes) -> tuple[JobBody, list[Fault]]:
    try:
        str(body, "utf-8")  # msgspec looks only at what it decodes, and `args` is not
        return _decode(body), []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        good, faults = explain(body, JobBody)
        return body_of(good), faults or [Fault("", "cannot be read")]


async def _send(send: Send, receipt: Receipt, answer: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
        (b"location", _JOBS + quote(receipt.id, safe="").encode()),
    ]
    if receipt.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    if receipt.duplicate:
        headers.append((b"unique-replayed", b"true"))
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
