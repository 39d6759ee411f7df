"""The sender: every message Celery wants to publish becomes a Submission in the ledger instead.

`AMQP._create_task_sender` is the one hook that `.delay()`, canvas, retries and callbacks all
pass with the final headers, body and queue. What a running attempt sends while Celery ends it
(the next link of a chain, callbacks, a retry) is captured and rides back to the worker's main
process, to be committed together with the attempt's outcome.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import celery
from celery import signals
from celery.app.amqp import AMQP
from kombu.serialization import dumps

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app import costs
from celeriac.errors import CeleriacError
from celeriac.jobs import Chord, Message, Submission, preview
from celeriac.ledger import submit
from celeriac.ledger.sql import as_json


class Capture:
    """What one attempt sends. `job` is the attempt's own id: sending that is a retry or a replacement."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self.sends: list[Submission] = []
        self.chords: list[Chord] = []
        self.again: Submission | None = None
        self.open = False  # whether everything sent now belongs to the outcome

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
        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> None:
            submission = self._submission(name, message, options)
            box = capture.get()
            if box is None or not box.takes(submission):
                self.app.ledger.do(submit, submission)
            signals.after_task_publish.send(
                sender=name, body=message.body, headers=message.headers, exchange="", routing_key=submission.queue
            )

        return send_task_message

    def _submission(self, name: str, message: Any, options: dict[str, Any]) -> Submission:
        headers, properties, body, _ = message
        headers.update(options.pop("headers", None) or {})
        queue = self._queue_name(options)
        for option in ("priority", "reply_to", "correlation_id"):
            if options.get(option) is not None:
                properties[option] = options[option]
        signals.before_task_publish.send(
            sender=name, body=body, exchange="", routing_key=queue, declare=[], headers=headers, properties=properties,
            retry_policy={},
        )  # fmt: skip
        return _submission(self.app, headers, properties, body, queue)

    @property
    def routes(self) -> list[Any]:
        """Celery's routes, after the way a task's cost leads."""
        return [costs.route, *super().routes]

    def _queue_name(self, options: dict[str, Any]) -> str:
        queue = options.get("queue")
        if queue is None:
            exchange = options.get("exchange")
            queue = options.get("routing_key") if exchange == "" else None
        if queue is None:
            queue = self.default_queue
        return str(getattr(queue, "name", queue))


def _submission(app: Any, headers: dict[str, Any], properties: dict[str, Any], body: Any, queue: str) -> Submission:
    content_type, _, data = dumps(body, serializer="json")
    if content_type != "application/json":
        raise CeleriacError("Only JSON messages can be kept in the ledger.")
    arguments, keywords, embed = body
    task = app.tasks.get(headers["task"])
    eta, expires = headers.get("eta"), headers.get("expires")
    chord = embed.get("chord")
    return Submission(
        id=headers["id"],
        task=headers["task"],
        queue=queue,
        owner=_owner(),
        # Time is the ledger's: a worker never sees an ETA or an expiry to wait for.
        message=Message(as_json({**headers, "eta": None, "expires": None}), as_json(properties), _text(data)),
        args=preview(arguments_by_name(task, arguments, keywords)),
        priority=int(properties.get("priority") or 0),
        cost=costs.as_column(costs.cost_of(task, arguments, keywords)),
        run_at=clock.parsed(eta),
        expires_at=clock.parsed(expires),
        max_attempts=getattr(task, "max_attempts", None),
        rerun=True,
        parent=headers.get("parent_id"),
        root=headers.get("root_id"),
        group=headers.get("group"),
        group_index=headers.get("group_index"),
        chord=headers.get("group") if chord else None,
    )


def arguments_by_name(task: Any, arguments: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as an object by the task's parameter names, or {"args", "kwargs"} where they have none."""
    if not arguments:
        return dict(keywords)
    names = getattr(task, "celeriac_parameters", None) or _parameters(task)
    if names is None or len(arguments) > len(names):
        return {"args": list(arguments), "kwargs": dict(keywords)}
    return {**dict(zip(names, arguments, strict=False)), **keywords}


def _parameters(task: Any) -> list[str] | None:
    import inspect

    if task is None:
        return None
    parameters = inspect.signature(task.run).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in positional]
    task.__class__.celeriac_parameters = names
    return names


def _owner() -> str:
    """Return on whose behalf this code submits: the owner of the job it runs in, or the system."""
    task = celery.current_task
    held = getattr(task.request, "celeriac", None) if task else None
    return held["owner"] if held else SYSTEM.owner


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()
