"""Problems: every error as application/problem+json (RFC 9457).

Errors are raised low and translated here, once. What nobody foresaw becomes a 500 without
its internals; the log has them under the same id. Called by `front.py`.
"""

import logging
from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from celeriac.errors import CeleriacError, Fault, InvalidRequest, MethodNotAllowed, NotFound
from celeriac.jobs import new_id, storable
from celeriac.web.pages import page

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
# What a request holds is told back in part only, and never half a character of it.
DETAIL_MOST = 10_000
PATH_MOST = 1_000


class FaultShape(msgspec.Struct):
    """One thing wrong with the request: where (a JSON pointer into the body, or the name of a query value) and what."""

    path: str
    message: str


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong, in one form for every error (RFC 9457). `code` is stable; `id` names a surprise in the log."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FaultShape] = msgspec.field(default_factory=list)
    id: str | None = None


def problem(error: Exception, as_page: bool = False) -> Response:
    """Return the response that tells of an error: to a program, or as a page to a person."""
    if isinstance(error, RequestValidationError):
        error = InvalidRequest.of(faults_of(error.errors()))
    headers = {}
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        error = _of_routing(error)
    if not isinstance(error, CeleriacError):
        return _response(_unexpected(error), {}, as_page)
    if error.status == 408:
        headers["Connection"] = "close"  # what still comes of this body is no request
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (503, 507):
        headers["Retry-After"] = str(RETRY_SECONDS)
    detail = storable(error.detail, DETAIL_MOST)
    told = Problem(_type(error.code), error.title, error.status, detail, error.code, _shapes(error.faults))
    return _response(told, headers, as_page)


def _of_routing(error: HTTPException) -> CeleriacError:
    if error.status_code == 404:
        return NotFound("No page and no route has this address. See /docs for those there are.")
    if error.status_code == 405:
        return MethodNotAllowed("This address does not take this method. See /docs for what it takes.")
    told = CeleriacError(str(error.detail))
    told.status = error.status_code
    return told


def _unexpected(error: Exception) -> Problem:
    id = new_id()
    log.error("Unexpected error %s", id, exc_info=error)
    detail = f"The server made a mistake. Its log tells more under {id}."
    return Problem(_type("internal"), "Something went wrong", 500, detail, "internal", id=id)


def _response(told: Problem, headers: dict[str, str], as_page: bool) -> Response:
    if as_page:
        response = page("problem.html", told.status, problem=told)
        response.headers.update(headers)
        return response
    return Response(msgspec.json.encode(told), told.status, headers, MEDIA_TYPE)


def _type(code: str) -> str:
    return f"urn:celeriac:problem:{code}"


def _shapes(faults: Iterable[Fault]) -> list[FaultShape]:
    return [FaultShape(storable(fault.path, PATH_MOST), storable(fault.message, DETAIL_MOST)) for fault in faults]


def faults_of(errors: Iterable[Any], below: str = "") -> list[Fault]:
    """Translate pydantic's faults with values of a query or a path, or of an object at a place in the body."""
    return [_fault(told, below) for told in errors]


def _fault(told: dict[str, object], below: str) -> Fault:
    location = told["loc"]
    place = [str(part) for part in location if part not in ("query", "path")] if isinstance(location, tuple) else []
    path = "/".join([below, *place])
    if told["type"] == "extra_forbidden":
        return Fault(path, "is not a value that this route takes")
    message = str(told["msg"]).removeprefix("Value error, ")
    return Fault(path, message[:1].lower() + message[1:])
