"""Submit and watch jobs from another program, over HTTP.

`Client` and `AsyncClient` have the same methods: what a request is and how its answer is read
is written once (`_Call` and the functions that make one), sending it twice. A submit carries an
Idempotency-Key of its own, so it is sent again safely when the connection breaks or the server
asks for patience; so is everything that only reads.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from celeriac.errors import CannotStart, CeleriacError, Fault
from celeriac.jobs import new_id
from celeriac.settings import Settings, load
from celeriac.states import is_final

Json: TypeAlias = dict[str, Any]

TIMEOUT_SECONDS = 30.0
WAIT_SECONDS = 30.0
ATTEMPTS = 5
PAUSE_SECONDS = 0.2


class ClientError(CeleriacError):
    """What the server answered instead: `status`, `code`, `detail` and `faults` are those of its problem."""

    def __init__(self, status: int, code: str, title: str, detail: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail, faults)
        self.status, self.code, self.title = status, code, title


class Unreachable(CeleriacError):
    """The server cannot be reached."""

    code, status, title = "unreachable", 503, "The server cannot be reached"


@dataclass(frozen=True, slots=True)
class _Call:
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


def _submit(task: str, args: Any, options: Mapping[str, Any]) -> _Call:
    key = options.get("idempotency_key") or new_id()
    fields = {name: value for name, value in options.items() if name != "idempotency_key" and value is not None}
    body = {"task": task, "args": {} if args is None else args, **fields}
    return _Call("POST", "/jobs", body=body, headers={"Idempotency-Key": key})


def _job(id: str, wait: float = 0) -> _Call:
    return _Call("GET", f"/jobs/{quote(id, safe='')}", {"wait": wait or None}, wait=wait)


def _jobs(filter: Mapping[str, Any], after: str | None) -> _Call:
    return _Call("GET", "/jobs", {**filter, "after": after})


def _events(id: str, after: int) -> _Call:
    return _Call("GET", f"/jobs/{quote(id, safe='')}/events", {"after": after})


def _cancel(id: str) -> _Call:
    return _Call("PUT", f"/jobs/{quote(id, safe='')}/cancellation", safe=False)


def _retry(id: str) -> _Call:
    return _Call("POST", f"/jobs/{quote(id, safe='')}/retries", safe=False)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, set, frozenset)) else str(value)


def _read(response: httpx.Response) -> Json:
    """Return the answer. Raises ClientError for a problem."""
    if response.is_success:
        answer: Json = response.json()
        return answer
    try:
        told = response.json()
        faults = tuple(Fault(fault["path"], fault["message"]) for fault in told.get("errors", ()))
        raise ClientError(response.status_code, told["code"], told["title"], told["detail"], faults)
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"{response.url} answered {response.status_code}, and not as Celeriac does. Is the address right?"
        raise ClientError(response.status_code, "not-celeriac", "Not an answer of Celeriac", detail) from None


def _pause(call: _Call, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
    """Return how long to wait before sending a call again, or None when this outcome stands."""
    unsent = isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
    again = outcome.status_code == 503 if isinstance(outcome, httpx.Response) else call.safe or unsent
    if not again or attempt + 1 >= ATTEMPTS:
        return None
    after = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
    pause: float = PAUSE_SECONDS * 2**attempt
    return max(pause, min(float(after), 30.0)) if after.isdigit() else pause


def _unreachable(base_url: str, error: httpx.TransportError) -> Unreachable:
    why = str(error) or type(error).__name__
    return Unreachable(f"Celeriac at {base_url} cannot be reached: {why}. Is it running, and is the address right?")


def _access(base_url: str | None, token: str | None) -> tuple[str, dict[str, str]]:
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


class Client:
    """A synchronous client, safe to share between threads. Use it as a context manager, or `close` it."""

    def __init__(self, base_url: str | None = None, token: str | None = None) -> None:
        self.base_url, headers = _access(base_url, token)
        self._http = httpx.Client(base_url=self.base_url, headers=headers, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, task: str, args: Any = None, **options: Any) -> Json:
        """Submit a job and return it.

        Options: queue, priority, run_at, delay, expires_at, max_attempts, tags, idempotency_key.
        """
        return self._send(_submit(task, args, options))

    def job(self, id: str, wait: float = 0) -> Json:
        """Return a job; with `wait`, as soon as it has ended or else after so many seconds (60 at most)."""
        return self._send(_job(id, wait))

    def wait(self, id: str, timeout: float | None = None) -> Json:
        """Return a job once it has ended. Raises TimeoutError when the time is over before."""
        deadline = _Deadline(timeout)
        while not is_final((job := self.job(id, deadline.next_wait()))["state"]):
            deadline.check(id)
        return job

    def jobs(self, **filter: Any) -> Iterator[Json]:
        """Yield jobs, newest first, page after page.

        Filters: state, task, queue, owner, tag (one value or a list of them), q, since, until, limit (of a page).
        """
        after: str | None = None
        while True:
            page = self._send(_jobs(filter, after))
            yield from page["jobs"]
            if (after := page["after"]) is None:
                return

    def events(self, id: str, after: int = 0) -> Iterator[Json]:
        """Yield the events of a job so far, in order."""
        following: int | None = after
        while following is not None:
            page = self._send(_events(id, following))
            yield from page["events"]
            following = page["after"]

    def cancel(self, id: str) -> Json:
        """Cancel a job and return it."""
        return self._send(_cancel(id))

    def retry(self, id: str) -> Json:
        """Send a failed or cancelled job through again and return it."""
        return self._send(_retry(id))

    def queues(self) -> list[Json]:
        """Return the queues."""
        return list(self._send(_Call("GET", "/queues"))["queues"])

    def workers(self) -> list[Json]:
        """Return the workers."""
        return list(self._send(_Call("GET", "/workers"))["workers"])

    def tasks(self) -> list[Json]:
        """Return the tasks."""
        return list(self._send(_Call("GET", "/tasks"))["tasks"])

    def _send(self, call: _Call) -> Json:
        for attempt in range(ATTEMPTS):
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            pause = _pause(call, attempt, outcome)
            if pause is None:
                break
            time.sleep(pause)
        if isinstance(outcome, httpx.TransportError):
            raise _unreachable(self.base_url, outcome) from outcome
        return _read(outcome)


class AsyncClient:
    """The same, for an event loop."""

    def __init__(self, base_url: str | None = None, token: str | None = None) -> None:
        self.base_url, headers = _access(base_url, token)
        self._http = httpx.AsyncClient(base_url=self.base_url, headers=headers, trust_env=False)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(self, task: str, args: Any = None, **options: Any) -> Json:
        """Submit a job and return it; options as in Client."""
        return await self._send(_submit(task, args, options))

    async def job(self, id: str, wait: float = 0) -> Json:
        """Return a job; with `wait`, as soon as it has ended or else after so many seconds (60 at most)."""
        return await self._send(_job(id, wait))

    async def wait(self, id: str, timeout: float | None = None) -> Json:
        """Return a job once it has ended. Raises TimeoutError when the time is over before."""
        deadline = _Deadline(timeout)
        while not is_final((job := await self.job(id, deadline.next_wait()))["state"]):
            deadline.check(id)
        return job

    async def jobs(self, **filter: Any) -> AsyncIterator[Json]:
        """Yield jobs, newest first, page after page; filters as in Client."""
        after: str | None = None
        while True:
            page = await self._send(_jobs(filter, after))
            for job in page["jobs"]:
                yield job
            if (after := page["after"]) is None:
                return

    async def events(self, id: str, after: int = 0) -> AsyncIterator[Json]:
        """Yield the events of a job so far, in order."""
        following: int | None = after
        while following is not None:
            page = await self._send(_events(id, following))
            for event in page["events"]:
                yield event
            following = page["after"]

    async def cancel(self, id: str) -> Json:
        """Cancel a job and return it."""
        return await self._send(_cancel(id))

    async def retry(self, id: str) -> Json:
        """Send a failed or cancelled job through again and return it."""
        return await self._send(_retry(id))

    async def queues(self) -> list[Json]:
        """Return the queues."""
        return list((await self._send(_Call("GET", "/queues")))["queues"])

    async def workers(self) -> list[Json]:
        """Return the workers."""
        return list((await self._send(_Call("GET", "/workers")))["workers"])

    async def tasks(self) -> list[Json]:
        """Return the tasks."""
        return list((await self._send(_Call("GET", "/tasks")))["tasks"])

    async def _send(self, call: _Call) -> Json:
        for attempt in range(ATTEMPTS):
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            pause = _pause(call, attempt, outcome)
            if pause is None:
                break
            await asyncio.sleep(pause)
        if isinstance(outcome, httpx.TransportError):
            raise _unreachable(self.base_url, outcome) from outcome
        return _read(outcome)


class _Deadline:
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
