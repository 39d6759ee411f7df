"""Letters: what lies in a broker's queue, and what it means. Pure.

Ours is a hint, "this queue has work", that names the job which caused it. A Celery task message of somebody
else's is a stranger, to be adopted (worker/hints.py). Whatever is neither is unreadable, with the reason.
"""

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from celeriac import clock
from celeriac.jobs import ID_LENGTH
from celeriac.previews import is_name, storable

_HINT = b'{"celeriac":"hint"'
# What of a message's properties goes with its job.
_KEPT = ("correlation_id", "reply_to", "priority")


class Unreadable(ValueError):
    """The message cannot become a job; the sentence says why."""


class Hint(NamedTuple):
    """A queue has work; `job` caused it, None when a whole queue was looked at."""

    job: str | None


class Stranger(NamedTuple):
    """A task message that somebody published without our sender, as Celery's own sender has it."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: tuple[list[Any], dict[str, Any], dict[str, Any]]


@dataclass(slots=True, eq=False)
class Letter:
    """A message that was received. `mark` and `source` are its connection's.

    `settled`: it has been acknowledged or put back, which is done once.
    """

    queue: str
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    mark: Any = None
    source: object = None
    at: float = 0.0
    settled: bool = False


def hint(job: str | None = None) -> bytes:
    """Return the body of a hint."""
    return msgspec.json.encode({"celeriac": "hint"} if job is None else {"celeriac": "hint", "job": job})


def is_hint(body: bytes) -> bool:
    """Say whether a message is one of ours."""
    return body.startswith(_HINT)


def is_carried(queue: str) -> bool:
    """Say whether a broker may have a queue of this name: AMQP bounds its length and keeps some for itself."""
    return len(queue.encode()) <= 255 and not queue.startswith("amq.")


def meaning(letter: Letter, most_bytes: int) -> Hint | Stranger:
    """Return what a letter says. Raises Unreadable."""
    if is_hint(letter.body):
        try:
            job = msgspec.json.decode(letter.body).get("job")
        except msgspec.DecodeError:
            raise Unreadable("It begins as a hint and is not JSON.") from None
        return Hint(job if isinstance(job, str) else None)
    if len(letter.body) > most_bytes:
        raise Unreadable(f"It has {len(letter.body):,} bytes; the most is {most_bytes:,} (CELERIAC_MAX_BODY_BYTES).")
    if letter.headers.get("compression"):
        raise Unreadable("It is compressed. Send it without task_compression.")
    if letter.content_type != "application/json":
        raise Unreadable(f"It is {letter.content_type[:100] or 'of no type'}, and only JSON is read (task_serializer).")
    return _stranger(letter)


def _stranger(letter: Letter) -> Stranger:
    headers, body = letter.headers, _decoded(letter.body)
    if not isinstance(headers.get("task"), str):
        if isinstance(body, dict) and "task" in body:
            raise Unreadable("It is of Celery's message protocol 1. Send it with task_protocol = 2.")
        raise Unreadable("It is no Celery task message: the header 'task' is missing.")
    for name in ("id", "task"):
        if not is_name(headers.get(name), ID_LENGTH):
            raise Unreadable(f"Its header {name!r} is not a text of 1 to {ID_LENGTH} characters.")
    if not (
        isinstance(body, list) and [type(part) for part in body[:2]] == [list, dict] and len(body) == 3
        and isinstance(body[2] or {}, dict)
    ):  # fmt: skip
        raise Unreadable("Its body is not [args, kwargs, embed].")
    for name in ("eta", "expires"):
        try:
            clock.parsed(headers.get(name))
        except (ValueError, TypeError, OverflowError):
            raise Unreadable(f"Its header {name!r} is not an ISO 8601 time.") from None
    properties = {name: letter.properties[name] for name in _KEPT if letter.properties.get(name) is not None}
    priority = properties.get("priority", 0)
    properties["priority"] = min(max(priority, 0), 9) if isinstance(priority, int) else 0
    kept = {name: value for name, value in headers.items() if name != "celeriac"}
    return Stranger(_plain(kept), _plain(properties), (body[0], body[1], body[2] or {}))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return headers as JSON has them: AMQP knows times and decimals, too."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)  # as Celery reads it: NaN, and numbers of any length
    except (ValueError, RecursionError):
        raise Unreadable("Its body is not JSON.") from None


def as_text(letter: Letter, most: int = 65_536) -> str:
    """Return a letter for people to read: JSON, with as much of the body as is bearable."""
    body = storable(letter.body[:most].decode("utf-8", "replace"), most)
    told = {"headers": letter.headers, "properties": letter.properties, "content_type": letter.content_type}
    return json.dumps({"body": body, "bytes": len(letter.body), **json.loads(storable(json.dumps(told, default=str)))})
