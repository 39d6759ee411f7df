"""The sender: every message Celery wants to publish becomes a Submission in the ledger instead.

`AMQP._create_task_sender` is the one hook that `.delay()`, canvas, retries and callbacks all
pass with the final headers, body and queue. What a running attempt sends while Celery ends it
(the next link of a chain, callbacks, a retry) is captured and rides back to the worker's main
process, to be committed together with the attempt's outcome.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import celery
from celery import signals
from celery.app.amqp import AMQP
from kombu import Queue
from kombu.serialization import dumps

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app import costs
from celeriac.app.redaction import REDACTED
from celeriac.app.signature import redaction_of, signature_of
from celeriac.errors import CeleriacError, Unroutable
from celeriac.jobs import ID_LENGTH, Chord, Message, Submission, is_name, preview
from celeriac.ledger import submit
from celeriac.ledger.sql import as_json

_NAMES = ("id", "task", "root_id", "parent_id", "group")


class Capture:
    """What one attempt sends. `job` is the attempt's own id: sending that is a retry or a replacement."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self.sends: list[Submission] = []
        self.chords: list[Chord] = []
        self.again: Submission | None = None
        self.open = False  # whether everything sent now belongs to the outcome
        self.replaced = False  # whether the job goes on as the canvas that was sent

    def takes(self, submission: Submission) -> bool:
        """Keep a submission if it belongs to the outcome; say whether it was kept."""
        if submission.id == self.job:
            self.again = submission
        elif self.open:
            self.sends.append(submission)
        else:
            return False
        return True


capture: ContextVar[Capture | None] = ContextVar("celeriac_capture", default=None)


@contextmanager
def capturing(job: str | None = None) -> Iterator[Capture]:
    """Capture everything sent in this block, to commit it with something else."""
    box = capture.get()
    if box is None or job is not None:
        box = Capture(job)
    token, before = capture.set(box), box.open
    box.open = True
    try:
        yield box
    finally:
        box.open = before
        capture.reset(token)


class LedgerAMQP(AMQP):
    """Celery's message factory with the ledger at its end."""

    def _retry_publish(self, publish: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Called for callbacks and the next link of a chain, in the child, before the result is stored.
        if capture.get() is None:
            return publish(*args, **kwargs)
        with capturing():
            return publish(*args, **kwargs)

    def _create_task_sender(self) -> Callable[..., Any]:
        publish = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> None:
            queue = self._queue(options)
            if isinstance(queue, Queue) and queue.exchange.type == "fanout":  # to every worker, by mail
                publish(producer, name, message, **{**options, "queue": queue, "declare": [queue.exchange]})
                return
            submission = self._submission(name, message, str(getattr(queue, "name", queue)), options)
            box = capture.get()
            if box is None or not box.takes(submission):
                self.app.ledger.backlog.check()
                self.app.ledger.do(submit, submission)
            signals.after_task_publish.send(
                sender=name, body=message.body, headers=message.headers, exchange="", routing_key=submission.queue
            )
            if message.sent_event:
                told = {
                    **message.sent_event,
                    "queue": submission.queue,
                    "exchange": "",
                    "routing_key": submission.queue,
                }
                told |= {"args": message.headers["argsrepr"], "kwargs": message.headers["kwargsrepr"]}
                self._event_dispatcher.publish("task-sent", told, producer, retry=False)

        return send_task_message

    def _submission(self, name: str, message: Any, queue: str, options: dict[str, Any]) -> Submission:
        headers, properties, body, _ = message
        headers.update(options.pop("headers", None) or {})
        headers.pop("celeriac", None)  # what the worker knew of the attempt that sends itself again
        for option in ("priority", "reply_to", "correlation_id"):
            if options.get(option) is not None:
                properties[option] = options[option]
        signals.before_task_publish.send(
            sender=name, body=body, exchange="", routing_key=queue, declare=[], headers=headers, properties=properties,
            retry_policy={},
        )  # fmt: skip
        return submission_of(self.app, headers, properties, body, queue)

    @property
    def routes(self) -> list[Any]:
        """Celery's routes, after the way a task's cost leads."""
        return [costs.route, *super().routes]

    def _queue(self, options: dict[str, Any]) -> Any:
        """Return the queue (or its name) a message is for: the one bound to its exchange, or the one named."""
        queue, exchange, key = (options.get(name) for name in ("queue", "exchange", "routing_key"))
        if exchange is not None and key:
            name = getattr(exchange, "name", exchange)
            if name == "":
                return key
            bound = [each for each in self.queues.values() if each.exchange and each.exchange.name == name]
            found = next((each for each in bound if _matches(each, key)), None)
            if found is not None:
                return found
            if queue is None or queue == self.default_queue:  # Celery puts that in where none was named
                raise Unroutable(name, key)
        if queue is None:
            return self.default_queue
        if isinstance(queue, str):  # not by [], which makes a queue of any name
            return self.queues.aliases.get(queue) or self.queues.get(queue, queue)
        return queue


def _matches(queue: Queue, key: str) -> bool:
    """Say whether a message with this routing key reaches a queue that is bound to its exchange."""
    if queue.exchange.type == "fanout":
        return True
    pattern = queue.routing_key or ""
    if queue.exchange.type != "topic":
        return bool(pattern == key)
    expression = re.escape(pattern).replace(r"\*", "[^.]+").replace(r"\#", ".*")
    return re.fullmatch(expression, key) is not None


def submission_of(app: Any, headers: dict[str, Any], properties: dict[str, Any], body: Any, queue: str) -> Submission:
    """Make a submission of what Celery would send. Raises ValueError and what a task's own code raises."""
    try:
        return _submission_of(app, headers, properties, body, queue)
    except UnicodeEncodeError:
        raise ValueError("An argument or a header has a lone surrogate in it, which is no text.") from None


def _submission_of(app: Any, headers: dict[str, Any], properties: dict[str, Any], body: Any, queue: str) -> Submission:
    content_type, _, data = dumps(body, serializer="json")
    if content_type != "application/json":
        raise CeleriacError("Only JSON messages can be kept in the ledger.")
    arguments, keywords, embed = body
    _check_place(queue, properties.get("priority"))
    _check_headers(headers)
    task = app.tasks.get(headers["task"])
    chord = embed.get("chord")
    text = _text(data)
    shown, secret = shown_arguments(task, app.settings.redact, arguments, keywords, text)
    if secret:  # what Celery made of them for its logs and events
        headers |= {"argsrepr": "()", "kwargsrepr": preview(shown)}
    return Submission(
        id=headers["id"],
        task=headers["task"],
        queue=queue,
        owner=_owner(),
        # Time is the ledger's: a worker never sees an ETA or an expiry to wait for.
        message=Message(as_json({**headers, "eta": None, "expires": None}), as_json(properties), text),
        args=preview(shown),
        priority=int(properties.get("priority") or 0),
        cost=costs.as_column(costs.cost_of(task, arguments, keywords)),
        run_at=_time(headers, "eta"),
        expires_at=_time(headers, "expires"),
        max_attempts=getattr(task, "max_attempts", None),
        rerun=app.reruns(task),
        parent=headers.get("parent_id"),
        root=headers.get("root_id"),
        group=headers.get("group"),
        group_index=headers.get("group_index"),
        chord=headers.get("group") if chord else None,
    )


def _check_place(queue: str, priority: Any) -> None:
    """Refuse what HTTP refuses, too. Raises ValueError."""
    if not is_name(queue, 200):
        raise ValueError(
            f"The name of a queue has 1 to 200 characters and no NUL, unlike {queue[:40]!r} with {len(queue)}."
        )
    if priority is not None and not (type(priority) is int and 0 <= priority <= 9):
        raise ValueError(f"A priority is a whole number from 0 to 9, higher first, not {priority!r}.")


def _check_headers(headers: dict[str, Any]) -> None:
    """Refuse what no database takes, and what no worker survives. Raises ValueError."""
    for name in _NAMES:
        if (text := headers.get(name)) is not None and not is_name(text, ID_LENGTH):
            raise ValueError(f"{name!r} is a text of 1 to {ID_LENGTH} characters without NUL, not {text!r:.60}.")
    for name, limit in zip(("time_limit", "soft_time_limit"), headers.get("timelimit") or (), strict=False):
        if not is_limit(limit):
            raise ValueError(f"{name} is a number of seconds, at most 100 years, not {limit!r:.60}.")


def is_limit(limit: object) -> bool:
    """Say whether a job may have this time limit."""
    if isinstance(limit, int | float) and not isinstance(limit, bool):
        return 0 <= limit <= clock.FAR.total_seconds()
    return limit is None


def _time(headers: dict[str, Any], name: str) -> int | None:
    at = clock.parsed(headers.get(name))
    if at is not None and at > clock.micros() + clock.FAR // clock.MICROSECOND:
        raise ValueError(f"{name} is more than 100 years ahead.")
    return at


def shown_arguments(
    task: Any, redact: Sequence[str], arguments: Sequence[Any], keywords: dict[str, Any], body: str
) -> tuple[dict[str, Any], bool]:
    """Return arguments as people may see them, and whether some of them are hidden. `body` holds them as JSON."""
    redaction = redaction_of(task, redact)
    plain, named = arguments, keywords
    if suspect := redaction.suspects(body.encode("utf-8", "surrogatepass")):
        plain, named, _ = json.loads(body)  # what JSON makes of them can be looked through
    shown = known = arguments_by_name(task, plain, named)
    if suspect or plain or calls_another(task):
        shown = shown_by_name(task, redact, plain, named, deep=suspect)
    return shown, shown != known


def shown_by_name(
    task: Any, redact: Sequence[str], arguments: Sequence[Any], keywords: dict[str, Any], *, deep: bool = True
) -> dict[str, Any]:
    """Return arguments by name without what stands where a hiding name does, nor what is hidden within (`deep`)."""
    redaction = redaction_of(task, redact)
    names = signature_of(task).names if task is not None and arguments else ()
    shown = arguments_by_name(task, redaction.positional(names, arguments), keywords)
    inner = called_by(task, shown) if calls_another(task) else None
    if inner is not None and "it" in shown and _hides(inner, redact):
        shown["it"] = REDACTED
    return redaction.value(shown) if deep else shown


def calls_another(task: Any) -> bool:
    """Say whether a task is one of Celery's own that call another one with each item of `it`."""
    return task is not None and task.name in ("celery.map", "celery.starmap", "celery.chunks")


def called_by(task: Any, named: dict[str, Any]) -> Any:
    """Return the task that such a task calls, None if this process does not know it."""
    called = named.get("task")
    name = called.get("task") if isinstance(called, dict) else None
    return task.app.tasks.get(name) if isinstance(name, str) else None


def _hides(task: Any, redact: Sequence[str]) -> bool:
    """Say whether a task has anything of its own to hide, or a parameter with a hiding name."""
    redaction = redaction_of(task, redact)
    return redaction is not redaction_of(None, redact) or any(map(redaction.hides, signature_of(task).names))


def arguments_by_name(task: Any, arguments: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as an object by the task's parameter names, or {"args", "kwargs"} where they have none."""
    if not arguments:
        return dict(keywords)
    names = signature_of(task).names if task is not None else None
    if names is None or len(arguments) > len(names):
        return {"args": list(arguments), "kwargs": dict(keywords)}
    return {**dict(zip(names, arguments, strict=False)), **keywords}


def _owner() -> str:
    """Return on whose behalf this code submits: the owner of the job it runs in, or the system."""
    task = celery.current_task
    held = getattr(task.request, "celeriac", None) if task else None
    return held["owner"] if held else SYSTEM.owner


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()
