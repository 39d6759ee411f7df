"""Every error Celeriac raises, under one root.

Each has a stable kebab-case `code`, an HTTP status, and a sentence that says what is
wrong with the value, where, and what to do. They are raised low and translated once:
`web/problems.py` makes problem+json of them, `cli` a line on stderr and an exit code.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
        """Build one error out of all faults found."""
        found = list(faults)
        return cls("; ".join(f"{fault.path or '/'}: {fault.message}" for fault in found), found)


class InvalidArguments(InvalidRequest):
    """The arguments do not fit the task's signature."""

    code, title = "invalid-arguments", "The arguments do not fit the task"


class UnknownTask(CeleriacError):
    """No task of this name is exposed here."""

    code, status, title = "unknown-task", 422, "There is no such task"

    def __init__(self, task: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f"There is no task {task!r}. Known tasks: {names}.", [Fault("/task", "is not a known task")])


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


class JobNotFound(CeleriacError):
    """No job of this id exists, or the caller may not see it."""

    code, status, title = "job-not-found", 404, "There is no such job"

    def __init__(self, job: str) -> None:
        super().__init__(f"There is no job {job!r}. It may have been pruned, or belong to somebody else.")


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


class LedgerFull(CeleriacError):
    """The disk under the ledger is full; nothing was accepted."""

    code, status, title = "ledger-full", 507, "The disk under the ledger is full"


class LedgerVersion(CeleriacError):
    """The database's schema is not the one this program knows."""

    code, status, title = "ledger-version", 503, "The ledger has another version"


class ResultNotStorable(CeleriacError):
    """What a task returned cannot be written, even after sanitising."""

    code, title = "result-not-storable", "The result cannot be stored"


class CannotStart(CeleriacError):
    """A process cannot start: the sentence says why and what to do. Exit code 2."""

    code, title = "cannot-start", "Cannot start"
