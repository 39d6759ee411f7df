"""Job, Event, Submission and their kin: what is passed between the parts, frozen, no I/O.

Times are whole microseconds since the epoch (`clock.micros`), texts marked JSON are
JSON documents kept as text. Rows of the ledger become these; the API renders them.
Next: ledger/moves/submit.py, where a Submission becomes a Job.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, dataclass_transform

from celeriac.previews import PREVIEW_BYTES as PREVIEW_BYTES
from celeriac.previews import is_name as is_name
from celeriac.previews import preview as preview
from celeriac.previews import storable as storable
from celeriac.states import State

Kept = TypeVar("Kept")
ID_LENGTH = 255  # the most that an id, and the name of a task, may have


class Kind(StrEnum):
    """The kinds of events in a job's history."""

    SUBMITTED = "submitted"
    SENT = "sent"
    CLAIMED = "claimed"
    STARTED = "started"
    PROGRESS = "progress"
    LOG = "log"
    MESSAGE = "message"
    FILE = "file"
    RETRYING = "retrying"
    GIVEN_BACK = "given-back"
    RESCUED = "rescued"
    QUARANTINED = "quarantined"
    CANCEL_REQUESTED = "cancel-requested"
    REOPENED = "reopened"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ErrorCode(StrEnum):
    """Why a job failed or was cancelled: `error.code` in the API."""

    RAISED = "raised"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker-lost"
    QUARANTINED = "quarantined"
    NOT_STORABLE = "result-not-storable"
    EXPIRED = "expired"
    UPSTREAM = "upstream-failed"
    NOT_DELIVERED = "not-delivered"


@dataclass_transform(frozen_default=True)
def record(kind: type[Kept]) -> type[Kept]:
    """Make a dataclass that is frozen for the type checker only: at run time it is then built three times as fast."""
    return dataclass(slots=True, unsafe_hash=True)(kind)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed. `celery` is the exception as Celery's backends store it (JSON)."""

    code: str
    type: str
    message: str
    traceback: str | None = None
    celery: str | None = None


@record
class Message:
    """A Celery task message, ready to be sent byte for byte: headers, properties and body are JSON."""

    headers: str
    properties: str
    body: str


def parts_of(body: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Return arguments, keywords and canvas of a message's body, as Celery reads it: NaN, and numbers of any length."""
    arguments, keywords, canvas = json.loads(body)
    return arguments, keywords, canvas or {}


@dataclass(frozen=True, slots=True)
class Unique:
    """A key of an owner and task that stands for one job until that is final and `seconds` have passed."""

    key: str
    seconds: float = 0


@record
class Submission:
    """A request to run a task, checked, routed and serialised; `ledger.submit` makes a job of it.

    `args` is the preview shown in lists (JSON, at most PREVIEW_BYTES). `rerun` says whether a
    started attempt that loses its worker runs again. With `failure` the job is recorded as
    ended (`ends_as`) without ever running (the links behind a failed one). `existing_ok` makes a second
    submit of the same id a no-op instead of an error: ids frozen by a canvas. `observed` jobs are run by
    whoever the broker gives them to; the ledger only records them and nobody claims them.
    """

    id: str
    task: str
    queue: str
    owner: str
    message: Message
    args: str = "{}"
    priority: int = 0
    cost: int | None = None
    run_at: int | None = None
    expires_at: int | None = None
    max_attempts: int | None = None
    rerun: bool = True
    tags: tuple[str, ...] = ()
    parent: str | None = None
    root: str | None = None
    group: str | None = None
    group_index: int | None = None
    chord: str | None = None
    schedule: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    failure: Failure | None = None
    ends_as: State = State.FAILED
    existing_ok: bool = False
    unique: Unique | None = None
    batch: str | None = None
    observed: bool = False


@record
class Receipt:
    """What a submit answers: the job's id and internal key.

    `replayed` when an Idempotency-Key was known, `duplicate` when a unique key stands for this job.
    """

    id: str
    key: int
    state: State
    created_at: int
    replayed: bool = False
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Chord:
    """A set of jobs whose results together start a body. `body` is sent when `size` members succeeded.

    In the body's messages CHORD_RESULTS stands where the list of results goes.
    """

    id: str
    size: int | None = None
    body: tuple[Submission, ...] = ()
    chords: tuple["Chord", ...] = ()


# Stands, as a JSON string, where a chord's body receives the list of its members' results.
CHORD_RESULTS = "celeriac:chord-results:5f0c1d7e"


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A worker node asks for up to `limit` jobs of these queues, of tasks it knows.

    Of a task in `one_each` (a task with a rate limit, whose turn it is) it takes one at most. `served` names for a
    queue the owner who had the last turn there; the next ones come next.
    """

    worker: str
    queues: tuple[str, ...]
    tasks: str  # JSON array
    limit: int
    one_each: tuple[str, ...] = ()
    served: Mapping[str, str] = field(default_factory=dict)


@record
class Claimed:
    """A claimed job as the worker gets it; `attempt` is the fencing token of everything it writes."""

    key: int
    id: str
    task: str
    queue: str
    owner: str
    attempt: int
    deaths: int
    message: Message


@record
class Start:
    """User code of an attempt began at `at`."""

    key: int
    attempt: int
    at: int


@dataclass(frozen=True, slots=True)
class Note:
    """A line of history that moves nothing: progress, a log line or a message of the task."""

    key: int
    attempt: int
    at: int
    kind: Kind
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class Remark:
    """What an attempt says of itself with Celery's `update_state`: a state of its own making, and JSON."""

    key: int
    attempt: int
    at: int
    state: str
    meta: str


@record
class Outcome:
    """How an attempt ended; `ledger.finish` writes it if the attempt still holds the job.

    `state` is where the job goes (RETRYING and QUEUED reopen it). `started_at` is set when the
    start was not written before. `sends` and `chords` (the next links of a chain, callbacks,
    error callbacks) commit with it or not at all. `message`, `task`, `queue`, `priority` replace
    the job's own when a retry or `Task.replace` changed them. A `replaced` job goes on as the
    canvas in `sends` and `chords`: it waits as RETRYING until the last task of that is submitted
    under its id. `children` (JSON) are the results Celery shows as `AsyncResult.children`.
    """

    key: int
    id: str
    attempt: int
    task: str
    queue: str
    state: State
    at: int
    kind: Kind
    data: dict[str, Any] | None = None
    started_at: int | None = None
    result: str | None = None
    preview: str | None = None
    failure: Failure | None = None
    run_at: int | None = None
    death: bool = False
    message: Message | None = None
    new_task: str | None = None
    new_queue: str | None = None
    new_priority: int | None = None
    sends: tuple[Submission, ...] = ()
    chords: tuple[Chord, ...] = ()
    replaced: bool = False
    children: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `value` of `total` (None when unknown) with a short note."""

    value: float
    total: float | None = None
    note: str | None = None


@record
class Job:
    """A job as people see it. In lists `args` and `result` are previews; `payload` says which it is."""

    key: int
    id: str
    task: str
    state: State
    queue: str
    priority: int
    args: str
    result: str | None
    failure: Failure | None
    progress: Progress | None
    attempt: int
    max_attempts: int | None
    owner: str
    tags: tuple[str, ...]
    cost: int | None
    created_at: int
    run_at: int | None
    expires_at: int | None
    started_at: int | None
    finished_at: int | None
    cancel_requested_at: int | None
    worker: str | None
    parent: str | None
    root: str | None
    group: str | None
    schedule: str | None
    number: int
    message: Message | None = None
    batch: str | None = None
    observed: bool = False
    celery_state: str | None = None  # what the task said of itself with `update_state`; read with the payload
    celery_meta: str | None = None  # JSON


@record
class Event:
    """One line of a job's history, numbered from 1 within the job."""

    job: str
    number: int
    at: int
    kind: str
    data: str | None  # JSON
    position: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a list shows; empty fields do not narrow it. Times are microseconds."""

    states: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    q: str | None = None
    since: int | None = None
    until: int | None = None


# Pools without a process for each job: whatever is to end a running one reaches it only where it reports progress.
COOPERATIVE_POOLS = ("threads", "solo")


@dataclass(frozen=True, slots=True)
class Worker:
    """A Celery worker node as the ledger knows it. `online` is the keeper's judgement, not a ping."""

    id: str
    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    concurrency: int
    pool: str
    version: str
    started_at: int
    beat_at: int
    stopped_at: int | None
    lost_at: int | None
    running: int = 0
    stuck_at: int | None = None  # since when it does nothing though it could

    @property
    def online(self) -> bool:
        """Whether it is neither stopped nor given up as dead."""
        return self.stopped_at is None and self.lost_at is None

    @property
    def cooperative(self) -> bool:
        """Whether a cancel or a time limit ends a running job only with its help."""
        return self.pool in COOPERATIVE_POOLS


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with its exact counts by state and the age of its oldest job that could start."""

    name: str
    paused_at: int | None
    counts: dict[str, int] = field(default_factory=dict)
    oldest_queued_at: int | None = None


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits, so ids sort by age."""
    stamp, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10)
    bits = random.hex()
    return f"{stamp[:8]}-{stamp[8:]}-7{bits[1:4]}-{'89ab'[random[2] >> 6]}{bits[5:8]}-{bits[8:]}"
