"""Problems: every error as application/problem+json (RFC 9457).

Errors are raised low and translated here, once. What nobody foresaw becomes a 500 without
its internals; the log has them under the same id. Called by `front.py`.
"""

import logging
from collections.abc import Iterable

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from celeriac.errors import CeleriacError, Fault, InvalidRequest, MethodNotAllowed, NotFound
from celeriac.jobs import new_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


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


def problem(error: Exception) -> Response:
    """Return the response that tells of an error."""
    if isinstance(error, RequestValidationError):
        error = InvalidRequest.of(_fault(told) for told in error.errors())
    headers = {}
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        error = _of_routing(error)
    if not isinstance(error, CeleriacError):
        return _unexpected(error)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (503, 507):
        headers["Retry-After"] = str(RETRY_SECONDS)
    told = Problem(_type(error.code), error.title, error.status, error.detail, error.code, _shapes(error.faults))
    return _response(told, headers)


def _of_routing(error: HTTPException) -> CeleriacError:
    if error.status_code == 404:
        return NotFound("No page and no route has this address. See /docs for those there are.")
    if error.status_code == 405:
        return MethodNotAllowed("This address does not take this method. See /docs for what it takes.")
    told = CeleriacError(str(error.detail))
    told.status = error.status_code
    return told


def _unexpected(error: Exception) -> Response:
    id = new_id()
    log.error("Unexpected error %s", id, exc_info=error)
    detail = f"The server made a mistake. Its log tells more under {id}."
    return _response(Problem(_type("internal"), "Something went wrong", 500, detail, "internal", id=id), {})


def _response(told: Problem, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(told), told.status, headers, MEDIA_TYPE)


def _type(code: str) -> str:
    return f"urn:celeriac:problem:{code}"


def _shapes(faults: Iterable[Fault]) -> list[FaultShape]:
    return [FaultShape(fault.path, fault.message) for fault in faults]


def _fault(told: dict[str, object]) -> Fault:
    """Translate one of pydantic's faults with a query value or a path."""
    location = told["loc"]
    place = [str(part) for part in location if part not in ("query", "path")] if isinstance(location, tuple) else []
    path = "/" + "/".join(place)
    if told["type"] == "extra_forbidden":
        return Fault(path, "is not a value that this route takes")
    message = str(told["msg"]).removeprefix("Value error, ")
    return Fault(path, message[:1].lower() + message[1:])
