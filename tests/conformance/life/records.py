"""What the model keeps of jobs, chords, keys and operations, and the chains in the messages of jobs.

Next: model.py, the rules by which they change.
"""

import json
from dataclasses import dataclass, field
from typing import TypeAlias

from celeriac.jobs import Kind, Message, Submission
from celeriac.ledger.sql import as_json
from celeriac.states import FINAL, State

Key: TypeAlias = tuple[str, str, str]  # owner, task, unique key


@dataclass
class Job:
    """A job as the rules see it."""

    id: str
    task: str
    queue: str
    owner: str
    priority: int
    state: State
    rerun: bool
    cap: int | None
    run_at: int | None
    expires_at: int | None
    finished_at: int | None
    unique: Key | None
    chord: str | None
    batch: str | None
    body: str  # of its message
    given_up: bool  # because of what was to run before it
    kinds: list[Kind]  # of its events
    key: int = 0
    attempt: int = 0
    executions: int = 0
    deaths: int = 0
    started: bool = False
    asked_to_end: bool = False
    worker: str | None = None
    lost: Key | None = None  # a unique key that it had

    @property
    def live(self) -> bool:
        return self.state not in FINAL

    @property
    def chain(self) -> tuple[str, ...]:
        return chain_of(self.body)

    @property
    def replaced(self) -> bool:
        """Whether it waits for the last task of the canvas as which it goes on."""
        return self.state is State.RETRYING and self.run_at is None

    def may_be_claimed(self, queue: str, tasks: tuple[str, ...], now: int) -> bool:
        fits = self.state is State.QUEUED and self.queue == queue and self.task in tasks
        return fits and (self.expires_at is None or self.expires_at > now)

    def is_of(self, wish: Submission) -> bool:
        """Whether a submit is this job's own, repeated."""
        theirs = wish.owner, wish.task, wish.batch, wish.chord, wish.message.body
        return theirs == (self.owner, self.task, self.batch, self.chord, self.body)


@dataclass
class ChordRecord:
    """A chord: which members have succeeded, and when it was decided what becomes of its body."""

    made_at: int
    size: int | None = None
    body: Submission | None = None
    decided_at: int | None = None
    parts: set[str] = field(default_factory=set)


@dataclass
class Entry:
    """What an Idempotency-Key stands for: a job, or a batch."""

    id: str
    fingerprint: str | None
    made_at: int


@dataclass
class Errand:
    """An operation: what it is to move, and down to which job it has come."""

    retries: bool
    queue: str | None
    before: int
    moved: int = 0
    refused: int = 0
    done: bool = False


def unique_of(wish: Submission) -> Key | None:
    return (wish.owner, wish.task, wish.unique.key) if wish.unique else None


def chain_of(body: str) -> tuple[str, ...]:
    """The ids of what follows in the chain of a message, nearest first."""
    return tuple(link["options"]["task_id"] for link in reversed(json.loads(body)[2].get("chain", [])))


def link_to(id: str, chord: str | None = None) -> dict[str, object]:
    """The signature of a job in the chain of another's message."""
    options: dict[str, object] = {"task_id": id}
    if chord is not None:
        options |= {"group_id": chord, "group_index": 0, "chord": {"task": "add"}}
    return {"task": "add", "args": [], "kwargs": {}, "options": options}


def message_before(*links: dict[str, object]) -> Message:
    """A message with these links behind it; Celery keeps them last first."""
    return Message('{"task":"add","retries":0}', "{}", as_json([[1, 2], {}, {"chain": links[::-1]}]))
