"""Tasks as HTTP knows them: which exist, who may submit them, and a Submission of a request.

Raw arguments are checked by the task's `signature` and stay the bytes they came as; what is
shown of them passes `redaction`. What never changes of a task's message is made once. Called
by `web/api`; needs no worker and no broker.
"""

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from inspect import getdoc
from typing import Any

import msgspec

from celeriac.app.application import Celeriac
from celeriac.app.costs import as_column, cost_of, queue_for
from celeriac.app.redaction import Redaction
from celeriac.app.sender import arguments_by_name, called_by, calls_another, shown_by_name
from celeriac.app.signature import redaction_of, signature_of
from celeriac.errors import Fault, InvalidArguments, UnknownTask
from celeriac.jobs import Message, Submission, Unique, new_id, preview
from celeriac.ledger.sql import as_json

_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_EMBED = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_decode_body = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw], msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode


class JobRequest(msgspec.Struct):  # a microsecond faster to make than a frozen dataclass
    """A request for a job as it came in: `args` is raw JSON, an object or an array; times in microseconds."""

    task: str
    args: bytes = b"{}"
    queue: str | None = None
    priority: int | None = None
    run_at: int | None = None
    expires_at: int | None = None
    max_attempts: int | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    fingerprint: str | None = None
    unique: Unique | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    batch: str | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task for `GET /tasks`: its name, docstring, where it goes and the JSON schema of its arguments."""

    name: str
    description: str
    queues: tuple[str, ...]
    schema: dict[str, Any] = field(default_factory=dict)


def exposed(app: Any, name: str) -> bool:
    """Say whether a task may be submitted over HTTP.

    A Celeriac app's tasks are, unless made with `expose=False`; an attached app's only when its
    `celeriac_expose`, a list of shell patterns, names them. Celery's own (`celery.*`) never are.
    """
    if name.startswith("celery.") or getattr(app.tasks[name], "expose", None) is False:
        return False
    patterns = app.conf.get("celeriac_expose", ("*",) if isinstance(app, Celeriac) else ())
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Tasks:
    """The tasks of an app: those that may be submitted over HTTP, and how to show the arguments of any.

    `redact` holds the patterns of names whose values are hidden; it defaults to the app's own settings.
    """

    def __init__(self, app: Celeriac, redact: Sequence[str] | None = None) -> None:
        self.app = app
        app.finalize()
        self._redact = tuple(app.settings.redact if redact is None else redact)
        names = sorted(name for name in app.tasks if exposed(app, name))
        self._kinds = {name: _Kind(app, name, self._redact) for name in names}

    @property
    def names(self) -> list[str]:
        """The names of the tasks that may be submitted, sorted."""
        return list(self._kinds)

    @property
    def infos(self) -> list[TaskInfo]:
        """What is known of each task that may be submitted."""
        return [kind.info for kind in self._kinds.values()]

    @property
    def queues(self) -> list[str]:
        """The queues that the app's tasks lead to, exposed or not."""
        names = [name for name in self.app.tasks if not name.startswith("celery.")]
        kinds = [self._kinds.get(name) or _Kind(self.app, name, self._redact) for name in names]
        return sorted({queue for kind in kinds for queue in kind.queues})

    def submission(self, request: JobRequest, owner: str) -> Submission:
        """Check a request and make a Submission of it.

        The queue is the one asked for, or else the one its cost leads to, or else the task's, or
        else the one Celery routes it to. Raises UnknownTask, InvalidArguments.
        """
        kind = self._kinds.get(request.task)
        if kind is None:
            raise UnknownTask(request.task, self._kinds, self._why_not(request.task))
        return kind.submission(request, owner)

    def _why_not(self, task: str) -> str | None:
        """Say why a task cannot be submitted over HTTP, and what to do; None for one that does not exist."""
        if self.app.mode != "own":
            return (
                "This app is only observed: its own broker queues its jobs, so none can be submitted over HTTP. "
                'Attach it with mode="own" for that.'
            )
        if task.startswith("celery.") or task not in self.app.tasks:
            return None
        if getattr(self.app.tasks[task], "expose", None) is False:
            return f"The task {task!r} is not exposed over HTTP: it is made with expose=False. Leave that out."
        return f'The task {task!r} is not exposed over HTTP. Attach the app with expose=("{task}",) for that.'

    def arguments(self, task: str, message: Message, stored: str) -> bytes:
        """Return a message's arguments as a JSON object by parameter name: values as they came, secrets hidden.

        Of a task that is not known here it is unknown what to hide: `stored`, the preview, is answered.
        """
        body = message.body.encode("utf-8", "surrogatepass")
        kind = self._kinds.get(task)
        known = kind.task if kind is not None else self.app.tasks.get(task)
        if known is None:
            return stored.encode("utf-8", "surrogatepass")
        if calls_another(known):
            return self._items(known, json.loads(body), stored)
        redaction = kind.redaction if kind is not None else redaction_of(known, self._redact)
        try:
            if body.startswith(b"[[],") and body.endswith(_EMBED):
                return redaction.raw(body[4 : -len(_EMBED)])
            arguments, keywords, _ = _decode_body(body)
            return redaction.raw(msgspec.json.encode(_named(known, redaction, arguments, keywords)))
        except msgspec.DecodeError:  # NaN and lone surrogates, which Python's own JSON knows
            arguments, keywords, _ = json.loads(body)
            return json.dumps(redaction.value(_named(known, redaction, arguments, keywords))).encode()

    def _items(self, task: Any, body: Sequence[Any], stored: str) -> bytes:
        """Return the arguments of a task that calls another one for each of its items."""
        shown = shown_by_name(task, self._redact, body[0], body[1])
        return (stored if called_by(task, shown) is None else json.dumps(shown)).encode("utf-8", "surrogatepass")


def _named(task: Any, redaction: Redaction, arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """Return arguments by name, those hidden that stand where a hiding name does."""
    names = signature_of(task).names if arguments else ()
    return arguments_by_name(task, redaction.positional(names, arguments), keywords)


class _Kind:
    """One task: its checks, its message, its way to a queue."""

    def __init__(self, app: Celeriac, name: str, redact: Sequence[str]) -> None:
        self._app = app
        self.task = app.tasks[name]
        self._name = name
        self.signature = signature_of(self.task)
        self.redaction = self.signature.redaction = redaction_of(self.task, redact)
        self._measures = getattr(self.task, "cost", None) is not None
        self._max_attempts = getattr(self.task, "max_attempts", None)
        self._priority = getattr(self.task, "priority", None) or 0

    @cached_property
    def info(self) -> TaskInfo:
        return TaskInfo(self._name, getdoc(self.task.run) or "", self.queues, self.signature.schema)

    @cached_property
    def queues(self) -> tuple[str, ...]:
        queues = (getattr(self.task, "queues", None) or {None: self._default_queue}).values()
        return tuple(dict.fromkeys(queues))

    def submission(self, request: JobRequest, owner: str) -> Submission:
        id = new_id()
        arguments, keywords = self.signature.bound(request.args)
        body = b"[%b,%b%b" % (arguments or b"[]", keywords or b"{}", _EMBED)
        secret = arguments is not None or self.redaction.suspects(body)
        cost = self._measured(arguments, keywords, secret) if self._measures else None
        shown = preview(self._shown(arguments, keywords, secret))
        limit = self._max_attempts if request.max_attempts is None else request.max_attempts
        priority = self._priority if request.priority is None else request.priority
        queue = request.queue or (queue_for(self.task, cost) if self._measures else None) or self._default_queue
        return Submission(
            id=id, task=self._name, queue=queue, owner=owner,
            message=Message(self._headers(id, shown, request), _properties(id, priority), body.decode()),
            args=shown, priority=priority, cost=as_column(cost), run_at=request.run_at, expires_at=request.expires_at,
            rerun=self._app.reruns(self.task),
            max_attempts=limit, tags=request.tags, root=id, idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint, unique=request.unique, batch=request.batch,
        )  # fmt: skip

    def _headers(self, id: str, shown: str, request: JobRequest) -> str:
        limits = self._limits
        if request.time_limit is not None or request.soft_time_limit is not None:
            limits = self._limits_of(request)
        return f'{{"id":"{id}","root_id":"{id}","timelimit":{limits},"kwargsrepr":{as_json(shown)},{self._constant}'

    @cached_property
    def _constant(self) -> str:
        """What is the same in the headers of every message of this task."""
        return as_json({
            "lang": "py", "task": self._name, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "parent_id": None, "argsrepr": "()", "origin": _ORIGIN,
            "ignore_result": bool(self.task.ignore_result), "replaced_task_nesting": 0, "stamped_headers": None,
            "stamps": {},
        })[1:]  # fmt: skip

    @cached_property
    def _limits(self) -> str:
        return as_json([self.task.time_limit, self.task.soft_time_limit])

    def _limits_of(self, request: JobRequest) -> str:
        """Return [hard, soft] of a request that names one; a task's own soft limit yields to a hard one below it."""
        hard = self.task.time_limit if request.time_limit is None else request.time_limit
        soft = request.soft_time_limit
        if soft is None:
            own = self.task.soft_time_limit
            soft = own if own is None or hard is None or own <= hard else None
        elif hard is not None and soft > hard:
            why = f"is more than the time limit of {hard:g} s, at which the task is killed"
            raise InvalidArguments.of([Fault("/soft_time_limit", why)])
        return as_json([hard, soft])

    def _measured(self, arguments: bytes | None, keywords: bytes | None, secret: bool) -> float | None:
        try:
            return cost_of(self.task, _decode(arguments or b"[]"), _decode(keywords or b"{}"))
        except InvalidArguments:
            if secret:
                raise InvalidArguments.of([Fault("/args", "the cost of these arguments cannot be measured")]) from None
            raise

    def _shown(self, arguments: bytes | None, keywords: bytes | None, secret: bool) -> Any:
        named: dict[str, Any] = _decode(keywords or b"{}")
        if arguments is None or arguments == b"[]":
            return self.redaction.value(named) if secret else named
        return self.redaction.value(_named(self.task, self.redaction, _decode(arguments), named))

    @cached_property
    def _default_queue(self) -> str:
        own = getattr(self.task, "own_queue", None) or getattr(self.task, "queue", None)
        if own is not None:
            return str(getattr(own, "name", own))
        route = self._app.amqp.router.route({}, self._name)
        queue = route.get("queue") or self._app.amqp.default_queue
        return str(getattr(queue, "name", queue))


def _properties(id: str, priority: int) -> str:
    return f'{{"correlation_id":"{id}","reply_to":"","priority":{priority}}}'
