"""Every error Celeriac raises, under one root.

Each has a stable kebab-case `code`, an HTTP status, and a sentence that says what is
wrong with the value, where, and what to do. They are raised low and translated once:
`web/problems.py` makes problem+json of them, `cli` a line on stderr and an exit code.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

FAULTS_MOST = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: where (a JSON pointer) and what."""

    path: str
    message: str


class CeleriacError(Exception):
    """The root. `code` and `status` are stable; the sentence may be improved."""

    code = "error"
    status = 500
    title = "Something went wrong"

    def __init__(self, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)


class InvalidRequest(CeleriacError):
    """The body, a query value or a header is not what the route takes; `faults` lists everything at once."""

    code, status, title = "invalid-request", 422, "The request is not valid"

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> "InvalidRequest":
        """Build one error out of all faults found, or of the first FAULTS_MOST."""
        found = list(islice(faults, FAULTS_MOST + 1))
        if len(found) > FAULTS_MOST:
            found[-1] = Fault("", f"holds more than {FAULTS_MOST} faults; the rest is not told")
        return cls("; ".join(f"{fault.path or '/'}: {fault.message}" for fault in found), found)


class InvalidArguments(InvalidRequest):
    """The arguments do not fit the task's signature."""

    code, title = "invalid-arguments", "The arguments do not fit the task"


class UnknownTask(CeleriacError):
    """No task of this name is exposed here; `why` is the sentence for a caller who may know more."""

    code, status, title = "unknown-task", 422, "There is no such task"

    def __init__(self, task: str, known: Iterable[str] = (), why: str | None = None) -> None:
        names = ", ".join(sorted(known))
        told = f"There is no task {task[:200]!r}." + (f" Known tasks: {names}." if names else "")
        super().__init__(why or told, [Fault("/task", why or "is not a known task")])


class NotJson(CeleriacError):
    """The body cannot be read as JSON."""

    code, status, title = "not-json", 400, "The body is not JSON"


class BodyTooLarge(CeleriacError):
    """The body is longer than the server accepts."""

    code, status, title = "body-too-large", 413, "The body is too large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The body is larger than {limit:,} bytes. Send less, or raise CELERIAC_MAX_BODY_BYTES on the server."
        )


class UnsupportedMediaType(CeleriacError):
    """The body is declared as something other than JSON."""

    code, status, title = "unsupported-media-type", 415, "The body is not declared as JSON"

    def __init__(self, given: str) -> None:
        told = f"says {given[:100]!r}" if given else "is missing"
        super().__init__(f"The header Content-Type {told}. Send the body as JSON with Content-Type: application/json.")


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is compressed, or in another character set than UTF-8."""

    def __init__(self, name: str, given: str) -> None:
        CeleriacError.__init__(self, f"The header {name} says {given[:100]!r}. Send the body as plain JSON in UTF-8.")


class BodyTimeout(CeleriacError):
    """The body did not arrive in time."""

    code, status, title = "body-timeout", 408, "The body did not arrive"

    def __init__(self, received: int) -> None:
        super().__init__(f"After {received:,} bytes the body did not go on. Nothing was accepted; send it again.")


class BatchNotFound(CeleriacError):
    """No batch of this id exists, or the caller may not see it."""

    code, status, title = "batch-not-found", 404, "There is no such batch"

    def __init__(self, batch: str) -> None:
        super().__init__(f"There is no batch {batch!r}. It may have been pruned, or belong to somebody else.")


class JobNotFound(CeleriacError):
    """No job of this id exists, or the caller may not see it."""

    code, status, title = "job-not-found", 404, "There is no such job"

    def __init__(self, job: str) -> None:
        super().__init__(f"There is no job {job!r}. It may have been pruned, or belong to somebody else.")


class QueueNotFound(CeleriacError):
    """No job, no worker and no pause has ever named this queue."""

    code, status, title = "queue-not-found", 404, "There is no such queue"

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"No job and no worker uses a queue {queue[:200]!r}, and it is not paused. GET /api/v1/queues lists them."
        )


class OperationNotFound(CeleriacError):
    """No operation of this id exists, or the caller may not see it."""

    code, status, title = "operation-not-found", 404, "There is no such operation"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"There is no operation {operation[:255]!r}. It may have been pruned, or belong to somebody else."
        )


class TokenNotFound(CeleriacError):
    """No token of this id exists."""

    code, status, title = "token-not-found", 404, "There is no such token"

    def __init__(self, token: str) -> None:
        super().__init__(f"There is no token with the id {token[:255]!r}. See /api/v1/tokens.")


class JobNotFinal(CeleriacError):
    """A person's retry of a job that has not ended."""

    code, status, title = "job-not-final", 409, "The job has not ended"

    def __init__(self, job: str, state: str) -> None:
        super().__init__(f"Job {job} is {state}, so it cannot be retried. Cancel it first or wait until it ends.")


class JobSucceeded(CeleriacError):
    """A person's retry of a job that did its work."""

    code, status, title = "job-succeeded", 409, "The job has succeeded"

    def __init__(self, job: str) -> None:
        super().__init__(f"Job {job} succeeded, so it cannot be retried. Submit a new job with the same arguments.")


class JobNeverRan(CeleriacError):
    """A person's retry of a job that failed because the one before it did: its input does not exist."""

    code, status, title = "job-never-ran", 409, "The job never ran"

    def __init__(self, job: str) -> None:
        super().__init__(
            f"Job {job} never ran, because a job it waits for failed, so there is no input to run it with. "
            "Retry the job that failed, or submit the whole chain or chord again."
        )


class JobKeyTaken(CeleriacError):
    """A person's retry of a job beside the one that has its unique key by now."""

    code, status, title = "job-key-taken", 409, "Another job has its unique key"

    def __init__(self, job: str, holder: str) -> None:
        super().__init__(
            f"Job {job} cannot be retried, because job {holder} has its unique key by now and would run beside it. "
            f"Wait until {holder} has ended, or cancel it first."
        )


class JobObserved(CeleriacError):
    """An order about a job that somebody else's broker gives out."""

    code, status, title = "job-observed", 409, "The job is only observed"

    def __init__(self, job: str) -> None:
        super().__init__(
            f"Job {job} is only observed: its own broker and workers decide about it. Use Celery's own means, as in "
            "`app.control.revoke(id)`, or attach the app with mode='own'."
        )


class JobFinal(CeleriacError):
    """A cancel of a job that has ended."""

    code, status, title = "job-final", 409, "The job has already ended"

    def __init__(self, job: str, state: str) -> None:
        ended = "was cancelled" if state == "cancelled" else f"has {state}"
        super().__init__(f"Job {job} {ended}, so there is nothing left to cancel.")


class JobExists(CeleriacError):
    """A submit with an id that is taken."""

    code, status, title = "job-exists", 409, "The id is taken"

    def __init__(self, job: str) -> None:
        super().__init__(f"A job with the id {job!r} exists. Leave the id out, or retry that job instead.")


class Unroutable(CeleriacError):
    """A message for an exchange and routing key that no queue of the app is bound to."""

    code, status, title = "unroutable", 422, "No queue takes this message"

    def __init__(self, exchange: str, key: str) -> None:
        super().__init__(
            f"No queue in task_queues is bound to the exchange {exchange!r} with the routing key {key!r}. "
            "Declare one, or name a queue instead."
        )


class IdempotencyMismatch(CeleriacError):
    """The Idempotency-Key was used before, with a different request."""

    code, status, title = "idempotency-mismatch", 422, "The Idempotency-Key belongs to another request"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The Idempotency-Key {key[:64]!r} was used with a different body. Use a new key for a new job."
        )


class Unauthorized(CeleriacError):
    """Nobody is logged in, or the token is not known."""

    code, status, title = "unauthorized", 401, "Please log in"


class Forbidden(CeleriacError):
    """The caller lacks the permission the route declares."""

    code, status, title = "forbidden", 403, "Not allowed"

    def __init__(self, permission: str) -> None:
        super().__init__(f"This needs the permission {str(permission)!r}, which your token does not carry.")


class TaskNotAllowed(CeleriacError):
    """The caller's token is for other tasks."""

    code, status, title = "task-not-allowed", 403, "The token is for other tasks"

    def __init__(self, task: str, patterns: Iterable[str], path: str = "/task") -> None:
        told = f"Your token is for the tasks {', '.join(patterns)} only, and {task[:200]!r} is none of them."
        super().__init__(told, [Fault(path, "is not a task that your token is for")])


class CrossSite(CeleriacError):
    """A change asked for with a cookie from another site's page."""

    code, status, title = "cross-site", 403, "Not from this site"


class HostNotAllowed(CeleriacError):
    """The Host header names a host this server does not answer to."""

    code, status, title = "host-not-allowed", 421, "This host is not served here"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server does not answer to the host {host[:200]!r}. "
            "Use 127.0.0.1 or localhost, or add the name to CELERIAC_ALLOWED_HOSTS."
        )


class NotFound(CeleriacError):
    """No route has this path."""

    code, status, title = "not-found", 404, "There is nothing here"


class MethodNotAllowed(CeleriacError):
    """The path exists, the method does not."""

    code, status, title = "method-not-allowed", 405, "This method is not allowed here"


class LedgerUnavailable(CeleriacError):
    """The database cannot be reached or written at the moment; nothing was accepted."""

    code, status, title = "ledger-unavailable", 503, "The ledger cannot be written now"


class LedgerBusy(LedgerUnavailable):
    """The transaction met another one, or found no free connection; nothing was written, and it may be tried again."""

    code, status, title = "ledger-busy", 503, "The ledger is busy"


class LedgerLocked(LedgerBusy):
    """Somebody else's open transaction holds rows that this one needs; nothing was written."""

    code, title = "ledger-locked", "Somebody holds a part of the ledger"


class LedgerUncertain(LedgerUnavailable):
    """The database went away while it was to commit: what was asked for may have been written, or not."""

    code, status, title = "ledger-uncertain", 503, "It is not known whether it was accepted"

    def __init__(self) -> None:
        super().__init__(
            "The ledger has gone away before it said whether this was accepted. Ask again with the same "
            "Idempotency-Key, or look whether it is there."
        )


class LedgerFull(CeleriacError):
    """The disk under the ledger is full; nothing was accepted."""

    code, status, title = "ledger-full", 507, "The disk under the ledger is full"


class Stopping(CeleriacError):
    """The process was told to stop, and still serves for a moment."""

    code, status, title = "stopping", 503, "This process is about to end"


class BacklogFull(CeleriacError):
    """So many jobs wait that no more are accepted."""

    code, status, title = "backlog-full", 503, "Too many jobs wait"

    def __init__(self, waiting: int, most: int) -> None:
        super().__init__(
            f"{waiting:,} jobs wait, and the most is {most:,} (CELERIAC_MAX_WAITING). Nothing was accepted. "
            "Ask again later, or start more workers."
        )


class LedgerVersion(CeleriacError):
    """The database's schema is not the one this program knows."""

    code, status, title = "ledger-version", 503, "The ledger has another version"


class JobsNeverEnd(CeleriacError):
    """Jobs that run inline go on making jobs."""

    code, title = "jobs-never-end", "The jobs do not come to an end"

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"After {attempts:,} attempts there is still a job to run. Does a task submit itself, or retry for ever?"
        )


class JobWaits(CeleriacError):
    """Somebody waits, in the thread that runs jobs inline, for one that does not run meanwhile."""

    code, title = "job-waits", "The job does not run meanwhile"

    def __init__(self, job: str, why: str) -> None:
        super().__init__(f"The result of job {job} does not come while you wait for it: {why}.")


class CannotStart(CeleriacError):
    """A process cannot start: the sentence says why and what to do. Exit code 2."""

    code, title = "cannot-start", "Cannot start"
