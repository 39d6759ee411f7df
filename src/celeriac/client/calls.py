"""What a request is and how its answer is read; for both clients, which only differ in sending it.

A submit carries an Idempotency-Key of its own, so it is sent again safely when the connection
breaks or the server asks for patience; so is everything that only reads. How long: `Patience`.
"""

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from celeriac import clock
from celeriac.errors import CannotStart, CeleriacError, Fault, LedgerUncertain
from celeriac.jobs import new_id
from celeriac.settings import Settings, load

Json: TypeAlias = dict[str, Any]

TIMEOUT_SECONDS = 30.0
WAIT_SECONDS = 30.0
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS, PAUSE_SECONDS_MOST = 0.2, 5.0
# The server is busy or asks for patience; or a proxy in front of it finds none that answers.
NOT_NOW, NOBODY_THERE = (429, 503), (502, 504)


class ClientError(CeleriacError):
    """What the server at `url` answered instead: `status`, `code`, `detail` and `faults` are those of its problem."""

    def __init__(
        self, status: int, code: str, title: str, detail: str, faults: tuple[Fault, ...] = (), url: str = ""
    ) -> None:
        super().__init__(detail, faults)
        self.status, self.code, self.title, self.url = status, code, title, url


class Unreachable(CeleriacError):
    """The server cannot be reached."""

    code, status, title = "unreachable", 503, "The server cannot be reached"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as both clients send it. `safe` says that it may be sent twice."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    safe: bool = True
    wait: float = 0

    def request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return the request for a client to send."""
        query = {name: _text(value) for name, value in self.query.items() if value is not None}
        return client.build_request(
            self.method, f"/api/v1{self.path}", params=query, json=self.body, headers=self.headers,
            timeout=TIMEOUT_SECONDS + self.wait,
        )  # fmt: skip


def submit(task: str, args: Any, options: Mapping[str, Any]) -> Call:
    key = options.get("idempotency_key") or new_id()
    return Call("POST", "/jobs", body=submission(task, args, options), headers={"Idempotency-Key": key})


def submission(task: str, args: Any = None, options: Mapping[str, Any] | None = None) -> Json:
    """Return a job to submit as the API takes it, single or in a batch."""
    fields = {name: value for name, value in (options or {}).items() if name != "idempotency_key" and value is not None}
    return {"task": task, "args": {} if args is None else args, **fields}


def submit_batch(submissions: Sequence[Json], key: str | None) -> Call:
    headers = {"Idempotency-Key": key or new_id()}
    return Call("POST", "/jobs/batch", body={"jobs": list(submissions)}, headers=headers)


def job(id: str, wait: float = 0) -> Call:
    return Call("GET", f"/jobs/{_quoted(id)}", {"wait": wait or None}, wait=wait)


def jobs(filter: Mapping[str, Any], after: str | None) -> Call:
    return Call("GET", "/jobs", {**filter, "after": after})


def events(id: str, after: int) -> Call:
    return Call("GET", f"/jobs/{_quoted(id)}/events", {"after": after})


def cancel(id: str) -> Call:
    return Call("PUT", f"/jobs/{_quoted(id)}/cancellation", safe=False)


def retry(id: str) -> Call:
    return Call("POST", f"/jobs/{_quoted(id)}/retries", safe=False)


def operate(path: str, filter: Mapping[str, Any], everything: bool) -> Call:
    given = {name: _text(value) for name, value in filter.items() if value not in (None, "", (), [])}
    return Call("POST", path, body={"filter": given, **({"all": True} if everything else {})}, safe=False)


def queue(name: str, method: str = "GET", below: str = "") -> Call:
    return Call(method, f"/queues/{_quoted(name)}{below}")


def noun(path: str, id: str) -> Call:
    return Call("GET", f"/{path}/{_quoted(id)}")


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, set, frozenset)) else str(value)


def read(response: httpx.Response) -> Json:
    """Return the answer. Raises ClientError for a problem."""
    if response.is_success:
        answer: Json = response.json()
        return answer
    try:
        told = response.json()
        faults = tuple(Fault(fault["path"], fault["message"]) for fault in told.get("errors", ()))
        asked = str(response.url.join("/")).rstrip("/")
        raise ClientError(response.status_code, told["code"], told["title"], told["detail"], faults, asked)
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"{response.url} answered {response.status_code}, and not as Celeriac does. Is the address right?"
        raise ClientError(response.status_code, "not-celeriac", "Not an answer of Celeriac", detail) from None


class Patience:
    """How long a call is sent again: for so many seconds, after pauses that grow, and not before the server says.

    The pauses are random within bounds, so that those who failed together do not come back together.
    """

    def __init__(self, call: Call, seconds: float) -> None:
        self._call = call
        self._until = clock.monotonic() + seconds + call.wait
        self._most = PAUSE_SECONDS

    def pause(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return how long to wait before sending the call again, or None when this outcome stands."""
        if not self._passes(outcome):
            return None
        asked = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
        pause = random.uniform(self._most / 2, self._most) + (float(asked) if asked.isdecimal() else 0)
        self._most = min(2 * self._most, PAUSE_SECONDS_MOST)
        return pause if clock.monotonic() + pause <= self._until else None

    def _passes(self, outcome: httpx.Response | httpx.TransportError) -> bool:
        """Say whether asking again may help, and does nothing twice that must be done once."""
        if isinstance(outcome, httpx.TransportError):
            return self._call.safe or isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
        if self._call.safe:
            return outcome.status_code in NOT_NOW + NOBODY_THERE
        return outcome.status_code in NOT_NOW and LedgerUncertain.code not in outcome.text


def unreachable(base_url: str, error: httpx.TransportError) -> Unreachable:
    why = str(error) or type(error).__name__
    return Unreachable(f"Celeriac at {base_url} cannot be reached: {why}. Is it running, and is the address right?")


def access(base_url: str | None, token: str | None) -> tuple[str, dict[str, str]]:
    """Return where to send requests and with which headers.

    What is not given comes from CELERIAC_URL and CELERIAC_TOKEN, or else from the settings and the home folder.
    """
    base_url, token = base_url or os.environ.get("CELERIAC_URL"), token or os.environ.get("CELERIAC_TOKEN")
    if base_url is None or token is None:
        settings = load()
        base_url = base_url or _address(settings)
        try:
            token = token or settings.token_path.read_text().strip()
        except OSError:
            raise CannotStart(
                f"No token was given and {settings.token_path} cannot be read. Pass one, or start `celeriac dev` there."
            ) from None
    return base_url, {"Authorization": f"Bearer {token}"}


def _address(settings: Settings) -> str:
    """Return where the server of this home folder answers: it leaves its address in the file `lock`."""
    try:
        return str(json.loads((settings.home / "lock").read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"http://{host}:{settings.port}"


class Deadline:
    """The time that a wait has left."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout

    def next_wait(self) -> float:
        left = WAIT_SECONDS if self._until is None else self._until - time.monotonic()
        return round(min(max(left, 0), WAIT_SECONDS), 3)

    def check(self, id: str) -> None:
        if self._until is not None and time.monotonic() >= self._until:
            raise TimeoutError(f"Job {id} did not end within {self._timeout:g} s. It goes on; ask for it again.")
