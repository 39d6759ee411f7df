"""The clients: for threads and for an event loop, with the same methods.

What is here is only how a request is sent. Next: calls.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import httpx

from celeriac.client import calls
from celeriac.client.calls import Call, Deadline, Json
from celeriac.states import is_final

Answer = TypeVar("Answer")


class Requests(Generic[Answer]):
    """What both ask for; a Client returns the answer, an AsyncClient what to await for it."""

    def _send(self, call: Call) -> Answer:
        raise NotImplementedError

    def submit(self, task: str, args: Any = None, **options: Any) -> Answer:
        """Submit a job and return it.

        Options: queue, priority, run_at, delay, expires_at, max_attempts, time_limit, soft_time_limit, tags,
        unique, idempotency_key.
        """
        return self._send(calls.submit(task, args, options))

    def submit_batch(self, submissions: Sequence[Json], idempotency_key: str | None = None) -> Answer:
        """Submit up to 1,000 jobs, all or none; returns `batch` and `jobs`. `submission` makes each."""
        return self._send(calls.submit_batch(submissions, idempotency_key))

    def batch(self, id: str) -> Answer:
        """Return a batch with the progress of its jobs."""
        return self._send(calls.noun("batches", id))

    def job(self, id: str, wait: float = 0) -> Answer:
        """Return a job; with `wait`, as soon as it has ended or else after so many seconds (60 at most)."""
        return self._send(calls.job(id, wait))

    def cancel(self, id: str) -> Answer:
        """Cancel a job and return it."""
        return self._send(calls.cancel(id))

    def retry(self, id: str) -> Answer:
        """Send a failed or cancelled job through again and return it."""
        return self._send(calls.retry(id))

    def cancel_all(self, everything: bool = False, **filter: Any) -> Answer:
        """Begin to cancel all jobs that a filter of `jobs` matches now; returns the operation.

        Without a filter only if `everything` is said.
        """
        return self._send(calls.operate("/cancellations", filter, everything))

    def retry_all(self, everything: bool = False, **filter: Any) -> Answer:
        """Begin to retry all jobs that a filter of `jobs` matches now; returns the operation."""
        return self._send(calls.operate("/retries", filter, everything))

    def operation(self, id: str) -> Answer:
        """Return an operation with its counts so far."""
        return self._send(calls.noun("operations", id))

    def pause(self, queue: str) -> Answer:
        """Let no job of a queue start any more; returns the queue."""
        return self._send(calls.queue(queue, "PUT", "/pause"))

    def resume(self, queue: str) -> Answer:
        """Let the jobs of a paused queue start again; returns the queue."""
        return self._send(calls.queue(queue, "DELETE", "/pause"))

    def stats(self, minutes: int = 60) -> Answer:
        """Return counts, queues, slots, and what ended in the last minutes."""
        return self._send(Call("GET", "/stats", {"minutes": minutes}))


class Client(Requests[Json]):
    """A synchronous client, safe to share between threads. Use it as a context manager, or `close` it.

    A server that starts again, is busy (503) or asks for patience (429) has `patience` seconds; 0 is none.
    """

    def __init__(
        self, base_url: str | None = None, token: str | None = None, patience: float = calls.PATIENCE_SECONDS
    ) -> None:
        self.base_url, self.headers = calls.access(base_url, token)
        self.patience = patience
        self._http = httpx.Client(base_url=self.base_url, headers=self.headers, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait(self, id: str, timeout: float | None = None) -> Json:
        """Return a job once it has ended. Raises TimeoutError when the time is over before."""
        deadline = Deadline(timeout)
        while not is_final((job := self.job(id, deadline.next_wait()))["state"]):
            deadline.check(id)
        return job

    def jobs(self, **filter: Any) -> Iterator[Json]:
        """Yield jobs, newest first, page after page.

        Filters: state, task, queue, owner, tag, batch (one value or a list), q, since, until; limit (of a page).
        """
        after: str | None = None
        while True:
            page = self._send(calls.jobs(filter, after))
            yield from page["jobs"]
            if (after := page["after"]) is None:
                return

    def events(self, id: str, after: int = 0) -> Iterator[Json]:
        """Yield the events of a job so far, in order."""
        following: int | None = after
        while following is not None:
            page = self._send(calls.events(id, following))
            yield from page["events"]
            following = page["after"]

    def queues(self) -> list[Json]:
        """Return the queues."""
        return list(self._send(Call("GET", "/queues"))["queues"])

    def workers(self) -> list[Json]:
        """Return the workers."""
        return list(self._send(Call("GET", "/workers"))["workers"])

    def tasks(self) -> list[Json]:
        """Return the tasks."""
        return list(self._send(Call("GET", "/tasks"))["tasks"])

    def _send(self, call: Call) -> Json:
        patience = calls.Patience(call, self.patience)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            if (pause := patience.pause(outcome)) is None:
                break
            time.sleep(pause)
        if isinstance(outcome, httpx.TransportError):
            raise calls.unreachable(self.base_url, outcome) from None
        return calls.read(outcome)


class AsyncClient(Requests[Coroutine[Any, Any, Json]]):
    """The same, for an event loop."""

    def __init__(
        self, base_url: str | None = None, token: str | None = None, patience: float = calls.PATIENCE_SECONDS
    ) -> None:
        self.base_url, self.headers = calls.access(base_url, token)
        self.patience = patience
        self._http = httpx.AsyncClient(base_url=self.base_url, headers=self.headers, trust_env=False)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def wait(self, id: str, timeout: float | None = None) -> Json:
        """Return a job once it has ended. Raises TimeoutError when the time is over before."""
        deadline = Deadline(timeout)
        while not is_final((job := await self.job(id, deadline.next_wait()))["state"]):
            deadline.check(id)
        return job

    async def jobs(self, **filter: Any) -> AsyncIterator[Json]:
        """Yield jobs, newest first, page after page; filters as in Client."""
        after: str | None = None
        while True:
            page = await self._send(calls.jobs(filter, after))
            for job in page["jobs"]:
                yield job
            if (after := page["after"]) is None:
                return

    async def events(self, id: str, after: int = 0) -> AsyncIterator[Json]:
        """Yield the events of a job so far, in order."""
        following: int | None = after
        while following is not None:
            page = await self._send(calls.events(id, following))
            for event in page["events"]:
                yield event
            following = page["after"]

    async def queues(self) -> list[Json]:
        """Return the queues."""
        return list((await self._send(Call("GET", "/queues")))["queues"])

    async def workers(self) -> list[Json]:
        """Return the workers."""
        return list((await self._send(Call("GET", "/workers")))["workers"])

    async def tasks(self) -> list[Json]:
        """Return the tasks."""
        return list((await self._send(Call("GET", "/tasks")))["tasks"])

    async def _send(self, call: Call) -> Json:
        patience = calls.Patience(call, self.patience)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            if (pause := patience.pause(outcome)) is None:
                break
            await asyncio.sleep(pause)
        if isinstance(outcome, httpx.TransportError):
            raise calls.unreachable(self.base_url, outcome) from None
        return calls.read(outcome)
