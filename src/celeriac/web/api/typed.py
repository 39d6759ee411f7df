"""POST /tasks/{task}/jobs: a task's own address; the body is nothing but its arguments.

What else a request may say stands in the query, by the names it has in the body of `POST /jobs`
(`unique_key` and `unique_window` for `unique`). Next: `submissions.py`, which answers.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from celeriac.access import Principal
from celeriac.errors import Fault, InvalidArguments, InvalidRequest, UnknownTask
from celeriac.jobs import Submission
from celeriac.web.api import PREFIX
from celeriac.web.api.bodies import explained, parsed
from celeriac.web.api.requests import JobBody, body_of, submission_of
from celeriac.web.api.submissions import Accept
from celeriac.web.auth import header
from celeriac.web.site import Site

# How a text of the query becomes what the field of a body holds; what does not fit stays a text and is refused.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "queue": str, "priority": int, "run_at": str, "delay": float, "expires_at": str, "max_attempts": int,
    "tags": lambda text: [tag for tag in text.split(",") if tag], "unique_key": str, "unique_window": float,
    "time_limit": float, "soft_time_limit": float,
}  # fmt: skip
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_UNIQUE = {"unique_key": "key", "unique_window": "window"}
_NAMES = {f"/unique/{field}": f"/{name}" for name, field in _UNIQUE.items()}


def routes(site: Site) -> list[BaseRoute]:
    """Return the route of every task's own address."""
    return [Route(f"{PREFIX}/tasks/{{task:path}}/jobs", AcceptTyped(site), methods=["POST"])]


class AcceptTyped(Accept):
    """Answers like `POST /jobs`."""

    may_be_empty = True

    def submission(self, scope: Scope, body: bytes, principal: Principal) -> Submission:
        """Return what the request asks for. Raises TaskNotAllowed, UnknownTask, InvalidRequest, NotJson."""
        query, task, key = scope["query_string"], scope["path_params"]["task"], header(scope, b"idempotency-key")
        options, unknown = _options(query)
        good, faults = explained({"task": task, **options}, JobBody)
        asked = body_of(good)
        asked.args, wrong = _arguments(body)
        faults += unknown + wrong
        fingerprint = b"\n".join((task.encode("utf-8", "surrogatepass"), query, body))
        try:
            return submission_of(self._site.tasks, principal, asked, faults, key=key, fingerprint=fingerprint)
        except UnknownTask as error:
            error.status = 404  # here the address names it
            raise
        except InvalidRequest as error:
            kind = InvalidArguments if isinstance(error, InvalidArguments) else InvalidRequest
            raise kind.of(Fault(_path(fault.path), fault.message) for fault in error.faults) from None


def _arguments(body: bytes) -> tuple[msgspec.Raw, list[Fault]]:
    """Return a body as arguments, and what is wrong with it. Raises NotJson."""
    try:
        str(body, "utf-8")
        return msgspec.json.decode(body or b"{}", type=msgspec.Raw), []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _, faults = explained({"task": "", "args": parsed(body)}, JobBody)
        return msgspec.Raw(b"{}"), faults or [Fault("/args", "cannot be read")]


def _options(query: bytes) -> tuple[dict[str, Any], list[Fault]]:
    """Return the query as fields of a body, and what is not one."""
    found: dict[str, Any] = {}
    faults = []
    for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"):
        if name not in OPTIONS:
            faults.append(Fault(f"/{name}", f"is not a value that this route takes; they are {', '.join(OPTIONS)}"))
        elif name in found and name != "tags":
            faults.append(Fault(f"/{name}", "is given twice"))
        else:
            value = _value(name, text)
            found[name] = found.get(name, []) + value if name == "tags" else value
    unique = {field: found.pop(name) for name, field in _UNIQUE.items() if name in found}
    if unique:
        found["unique"] = unique
    if "window" in unique and "key" not in unique:
        faults.append(Fault("/unique_window", "needs unique_key"))
        del found["unique"]
    return found, faults


def _value(name: str, text: str) -> Any:
    if name.endswith("_at"):
        text = text.replace(" ", "+")  # a plus that nobody encoded
    read = OPTIONS[name]
    if read in (int, float):
        number = _NUMBER.fullmatch(text)
        return text if number is None or (read is int and number[1]) else read(text)
    return read(text)


def _path(path: str) -> str:
    return _NAMES.get(path) or (path.removeprefix("/args") if path.startswith("/args") else path)
