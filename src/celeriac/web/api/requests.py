"""Requests for jobs: a body becomes a Submission, or everything that is wrong with it is told at once.

`submissions` (one job), `typed` (a task's own address) and `batches` (many) differ in where
the fields come from; what they mean, and what may be wrong with them, is here.
Next: app/tasks.py, which checks the arguments.
"""

import hashlib
import re
from typing import Annotated, Any

import msgspec

from celeriac import clock
from celeriac.access import Permission, Principal
from celeriac.app import JobRequest, Tasks
from celeriac.app.signature import unkept
from celeriac.errors import CeleriacError, Fault, InvalidArguments, InvalidRequest, TaskNotAllowed, UnknownTask
from celeriac.jobs import Submission, Unique
from celeriac.web.api.moments import future

_FAR_SECONDS = int(clock.FAR.total_seconds())
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


def _meta(description: str, **bounds: Any) -> msgspec.Meta:
    return msgspec.Meta(description=description, **bounds)


Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=_FAR_SECONDS)]


class UniqueBody(msgspec.Struct, forbid_unknown_fields=True):
    """A key that stands for one job of the owner and task until that has ended, and at least for `window` seconds."""

    key: Annotated[str, _meta("Your name for the job.", min_length=1, max_length=255)]
    window: Annotated[float, _meta("Seconds from acceptance, 0 or more.", ge=0, le=_FAR_SECONDS)] = 0


class JobBody(msgspec.Struct, forbid_unknown_fields=True):
    """A request to run a task. `args` is an object by parameter name, or an array."""

    task: Annotated[str, _meta("Name of the task.")]
    args: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    queue: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    run_at: str | None = None
    delay: Annotated[float, msgspec.Meta(ge=0)] | None = None
    expires_at: str | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    tags: Annotated[list[Tag], msgspec.Meta(max_length=20)] = msgspec.field(default_factory=list)
    unique: UniqueBody | None = None
    time_limit: Seconds | None = None
    soft_time_limit: Seconds | None = None


def body_of(good: dict[str, Any]) -> JobBody:
    """Make a body of the fields that are right."""
    fields = {"task": "", **good}
    if isinstance(fields.get("unique"), dict):
        fields["unique"] = msgspec.convert(fields["unique"], UniqueBody)
    return JobBody(**fields)


def submission_of(
    tasks: Tasks, principal: Principal, asked: JobBody, faults: list[Fault], batch: str | None = None,
    key: str | None = None, fingerprint: bytes = b"",
) -> Submission:  # fmt: skip
    """Check everything about a request before it costs the ledger anything.

    `faults` are those found already. Raises TaskNotAllowed, UnknownTask, InvalidRequest: with all faults at once.
    """
    if asked.task and not principal.may_run(asked.task):
        raise TaskNotAllowed(asked.task, principal.tasks)
    request = _request(asked, faults)
    request.batch = batch
    if key is not None:
        check_key(key, faults)
        request.idempotency_key, request.fingerprint = key, hashlib.sha256(fingerprint).hexdigest()
    if not faults:
        return _checked(tasks, request, principal)
    if asked.task:
        try:
            _checked(tasks, request, principal)
        except (InvalidRequest, UnknownTask) as error:
            known = {fault.path for fault in faults}
            blind = any(path.startswith("/args") for path in known)  # what is wrong there was not looked at as a whole
            faults += (
                fault
                for fault in error.faults
                if fault.path not in known and not (blind and fault.path.startswith("/args"))
            )
    raise InvalidRequest.of(faults)


def check_key(key: str, faults: list[Fault]) -> None:
    """Add what is wrong with an Idempotency-Key to the faults."""
    if not _VISIBLE.fullmatch(key):
        faults.append(Fault("Idempotency-Key", "must be 1 to 255 visible characters without spaces"))


def _checked(tasks: Tasks, request: JobRequest, principal: Principal) -> Submission:
    try:
        return tasks.submission(request, principal.owner)
    except UnknownTask as error:
        raise error if principal.may(Permission.SYSTEM_READ) else UnknownTask(request.task) from None
    except CeleriacError:
        raise
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError, OverflowError) as error:
        raise InvalidArguments.of([Fault("/args", unkept(error))]) from None


def _request(asked: JobBody, faults: list[Fault]) -> JobRequest:
    """Make a request of a body and add what is wrong with its values to the faults."""
    run_at = expires_at = None
    if asked.run_at is not None or asked.delay or asked.expires_at is not None:
        run_at, expires_at = _times(asked, faults)
    for place, tag in enumerate(asked.tags):
        if "," in tag or "\0" in tag:
            faults.append(Fault(f"/tags/{place}", "must not hold a comma, which separates tags in a filter, nor NUL"))
    if asked.queue is not None and "\0" in asked.queue:
        faults.append(Fault("/queue", "must not hold NUL"))
    unique = None
    if asked.unique is not None:
        unique = Unique(asked.unique.key, asked.unique.window)
        if "\0" in unique.key:
            faults.append(Fault("/unique/key", "must not hold NUL"))
    hard, soft = asked.time_limit, asked.soft_time_limit
    if hard is not None and soft is not None and soft > hard:
        faults.append(Fault("/soft_time_limit", f"is more than time_limit, {hard:g} s, at which the task is killed"))
    return JobRequest(
        asked.task, bytes(asked.args), asked.queue, asked.priority, run_at, expires_at, asked.max_attempts,
        tuple(dict.fromkeys(asked.tags)) if asked.tags else (), None, None, unique, hard, soft,
    )  # fmt: skip


def _times(asked: JobBody, faults: list[Fault]) -> tuple[int | None, int | None]:
    now = clock.micros()
    times: dict[str, int | None] = {"run_at": None, "expires_at": None}
    for name, text in (("run_at", asked.run_at), ("expires_at", asked.expires_at)):
        if text is not None:
            try:
                times[name] = future(text, now)
            except ValueError as error:
                faults.append(Fault(f"/{name}", str(error)))
    run_at, expires_at = times["run_at"], times["expires_at"]
    if asked.delay is not None:
        if asked.run_at is not None:
            faults.append(Fault("/delay", "cannot be given together with run_at"))
        elif asked.delay > _FAR_SECONDS:
            faults.append(Fault("/delay", "is more than 100 years"))
        elif asked.delay:
            run_at = now + int(asked.delay * 1_000_000)
    if expires_at is not None and expires_at <= max(run_at or 0, now):
        faults.append(Fault("/expires_at", "is not after the time at which the job may run"))
    return run_at, expires_at
