"""The clients: for threads and for an event loop, with the same methods.

What is here is only how a request is sent. Next: calls.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count
from types import TracebackType
from typing import Any

import httpx

from celeriac.client import calls
from celeriac.client.calls import Call, Deadline, Json
from celeriac.states import is_final


class Client:
    """A synchronous client, safe to share between threads. Use it as a context manager, or `close` it.

    A server that starts again, or is busy (503), has 15 seconds: a call is sent `attempts` times at most.
    """

    def __init__(self, base_url: str | None = None, token: str | None = None) -> None:
        self.base_url, self.headers = calls.access(base_url, token)
        self.attempts = calls.ATTEMPTS
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

    def submit(self, task: str, args: Any = None, **options: Any) -> Json:
        """Submit a job and return it.

        Options: queue, priority, run_at, delay, expires_at, max_attempts, time_limit, soft_time_limit, tags,
        unique, idempotency_key.
        """
        return self._send(calls.submit(task, args, options))

    def submit_batch(self, submissions: Sequence[Json], idempotency_key: str | None = None) -> Json:
        """Submit up to 1,000 jobs, all or none; returns `batch` and `jobs`. `submission` makes each."""
        return self._send(calls.submit_batch(submissions, idempotency_key))

    def batch(self, id: str) -> Json:
        """Return a batch with the progress of its jobs."""
        return self._send(calls.noun("batches", id))

    def job(self, id: str, wait: float = 0) -> Json:
        """Return a job; with `wait`, as soon as it has ended or else after so many seconds (60 at most)."""
        return self._send(calls.job(id, wait))

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

    def cancel(self, id: str) -> Json:
        """Cancel a job and return it."""
        return self._send(calls.cancel(id))

    def retry(self, id: str) -> Json:
        """Send a failed or cancelled job through again and return it."""
        return self._send(calls.retry(id))

    def cancel_all(self, everything: bool = False, **filter: Any) -> Json:
        """Begin to cancel all jobs that a filter of `jobs` matches now; returns the operation.

        Without a filter only if `everything` is said.
        """
        return self._send(calls.operate("/cancellations", filter, everything))

    def retry_all(self, everything: bool = False, **filter: Any) -> Json:
        """Begin to retry all jobs that a filter of `jobs` matches now; returns the operation."""
        return self._send(calls.operate("/retries", filter, everything))

    def operation(self, id: str) -> Json:
        """Return an operation with its counts so far."""
        return self._send(calls.noun("operations", id))

    def queues(self) -> list[Json]:
        """Return the queues."""
        return list(self._send(Call("GET", "/queues"))["queues"])

    def pause(self, queue: str) -> Json:
        """Let no job of a queue start any more; returns the queue."""
        return self._send(calls.queue(queue, "PUT", "/pause"))

    def resume(self, queue: str) -> Json:
        """Let the jobs of a paused queue start again; returns the queue."""
        return self._send(calls.queue(queue, "DELETE", "/pause"))

    def workers(self) -> list[Json]:
        """Return the workers."""
        return list(self._send(Call("GET", "/workers"))["workers"])

    def tasks(self) -> list[Json]:
        """Return the tasks."""
        return list(self._send(Call("GET", "/tasks"))["tasks"])

    def stats(self, minutes: int = 60) -> Json:
        """Return counts, queues, slots, and what ended in the last minutes."""
        return self._send(Call("GET", "/stats", {"minutes": minutes}))

    def _send(self, call: Call) -> Json:
        for attempt in count():
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            pause = calls.pause(call, attempt, outcome, self.attempts)
            if pause is None:
                break
            time.sleep(pause)
        if isinstance(outcome, httpx.TransportError):
            raise calls.unreachable(self.base_url, outcome) from None
        return calls.read(outcome)


class AsyncClient:
    """The same, for an event loop."""

    def __init__(self, base_url: str | None = None, token: str | None = None) -> None:
        self.base_url, self.headers = calls.access(base_url, token)
        self.attempts = calls.ATTEMPTS
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

    async def submit(self, task: str, args: Any = None, **options: Any) -> Json:
        """Submit a job and return it; options as in Client."""
        return await self._send(calls.submit(task, args, options))

    async def submit_batch(self, submissions: Sequence[Json], idempotency_key: str | None = None) -> Json:
        """Submit up to 1,000 jobs, all or none; returns `batch` and `jobs`. `submission` makes each."""
        return await self._send(calls.submit_batch(submissions, idempotency_key))

    async def batch(self, id: str) -> Json:
        """Return a batch with the progress of its jobs."""
        return await self._send(calls.noun("batches", id))

    async def job(self, id: str, wait: float = 0) -> Json:
        """Return a job; with `wait`, as soon as it has ended or else after so many seconds (60 at most)."""
        return await self._send(calls.job(id, wait))

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

    async def cancel(self, id: str) -> Json:
        """Cancel a job and return it."""
        return await self._send(calls.cancel(id))

    async def retry(self, id: str) -> Json:
        """Send a failed or cancelled job through again and return it."""
        return await self._send(calls.retry(id))

    async def cancel_all(self, everything: bool = False, **filter: Any) -> Json:
        """Begin to cancel all jobs that a filter of `jobs` matches now; returns the operation."""
        return await self._send(calls.operate("/cancellations", filter, everything))

    async def retry_all(self, everything: bool = False, **filter: Any) -> Json:
        """Begin to retry all jobs that a filter of `jobs` matches now; returns the operation."""
        return await self._send(calls.operate("/retries", filter, everything))

    async def operation(self, id: str) -> Json:
        """Return an operation with its counts so far."""
        return await self._send(calls.noun("operations", id))

    async def queues(self) -> list[Json]:
        """Return the queues."""
        return list((await self._send(Call("GET", "/queues")))["queues"])

    async def pause(self, queue: str) -> Json:
        """Let no job of a queue start any more; returns the queue."""
        return await self._send(calls.queue(queue, "PUT", "/pause"))

    async def resume(self, queue: str) -> Json:
        """Let the jobs of a paused queue start again; returns the queue."""
        return await self._send(calls.queue(queue, "DELETE", "/pause"))

    async def workers(self) -> list[Json]:
        """Return the workers."""
        return list((await self._send(Call("GET", "/workers")))["workers"])

    async def tasks(self) -> list[Json]:
        """Return the tasks."""
        return list((await self._send(Call("GET", "/tasks")))["tasks"])

    async def stats(self, minutes: int = 60) -> Json:
        """Return counts, queues, slots, and what ended in the last minutes."""
        return await self._send(Call("GET", "/stats", {"minutes": minutes}))

    async def _send(self, call: Call) -> Json:
        for attempt in count():
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            pause = calls.pause(call, attempt, outcome, self.attempts)
            if pause is None:
                break
            await asyncio.sleep(pause)
        if isinstance(outcome, httpx.TransportError):
            raise calls.unreachable(self.base_url, outcome) from None
        return calls.read(outcome)
