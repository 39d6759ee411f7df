"""Tasks as HTTP knows them: which exist, what arguments they take, and a Submission of a request.

Arguments are checked against the task's signature and annotations, all faults at once with
their paths, and stay the bytes they came as: they are neither coerced nor encoded anew.
Called by `web/api`; needs no worker and no broker.
"""

import inspect
import json
import os
import socket
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError

from celeriac.app.application import Celeriac
from celeriac.app.costs import as_column, cost_of, queue_for
from celeriac.app.sender import arguments_by_name
from celeriac.errors import Fault, InvalidArguments, UnknownTask
from celeriac.jobs import Message, Submission, new_id, preview
from celeriac.ledger.sql import as_json

_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_EMBED = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_decode_body = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw], msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class JobRequest:
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


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task for `GET /tasks`: its name, docstring, where it goes and the JSON schema of its arguments."""

    name: str
    description: str
    queues: tuple[str, ...]
    schema: dict[str, Any] = field(default_factory=dict)


class Tasks:
    """The tasks of an app that may be submitted over HTTP. Celery's own (`celery.*`) never are."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        app.finalize()
        names = sorted(name for name in app.tasks if not name.startswith("celery."))
        self._kinds = {name: _Kind(app, name) for name in names}

    @property
    def names(self) -> list[str]:
        """The names of all tasks, sorted."""
        return list(self._kinds)

    @property
    def infos(self) -> list[TaskInfo]:
        """What is known of each task."""
        return [kind.info for kind in self._kinds.values()]

    def submission(self, request: JobRequest, owner: str) -> Submission:
        """Check a request and make a Submission of it.

        The queue is the one asked for, or else the one its cost leads to, or else the task's, or
        else the one Celery routes it to. Raises UnknownTask, InvalidArguments.
        """
        kind = self._kinds.get(request.task)
        if kind is None:
            raise UnknownTask(request.task, self._kinds)
        return kind.submission(request, owner)

    def arguments(self, task: str, message: Message) -> bytes:
        """Return a message's arguments as a JSON object by parameter name, values as they came."""
        body = message.body.encode("utf-8", "surrogatepass")
        if body.startswith(b"[[],") and body.endswith(_EMBED):
            return body[4 : -len(_EMBED)]
        known = self.app.tasks.get(task)
        try:
            arguments, keywords, _ = _decode_body(body)
            return msgspec.json.encode(arguments_by_name(known, arguments, keywords))
        except msgspec.DecodeError:  # NaN and lone surrogates, which Python's own JSON knows
            arguments, keywords, _ = json.loads(body)
            return json.dumps(arguments_by_name(known, arguments, keywords)).encode()


class _Kind:
    """One task: its parameters, its checks, its way to a queue."""

    def __init__(self, app: Celeriac, name: str) -> None:
        self._app = app
        self._task = app.tasks[name]
        self._name = name
        self._parameters = list(inspect.signature(self._task.run).parameters.values())
        kinds = {parameter.kind for parameter in self._parameters}
        self._open_list = inspect.Parameter.VAR_POSITIONAL in kinds
        self._open_object = inspect.Parameter.VAR_KEYWORD in kinds
        self._positional_only = inspect.Parameter.POSITIONAL_ONLY in kinds
        self._names = [
            parameter.name
            for parameter in self._parameters
            if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]

    @cached_property
    def info(self) -> TaskInfo:
        queues = (getattr(self._task, "queues", None) or {None: self._default_queue}).values()
        return TaskInfo(
            self._name, inspect.getdoc(self._task.run) or "", tuple(dict.fromkeys(queues)),
            self._model.model_json_schema(),
        )  # fmt: skip

    def submission(self, request: JobRequest, owner: str) -> Submission:
        id = new_id()
        arguments, keywords = self._bound(request.args)
        cost = self._measured(arguments, keywords)
        body = b"[[]," + keywords if keywords is not None else b"[" + (arguments or b"[]") + b",{}"
        shown = preview(self._shown(arguments, keywords))
        limit = getattr(self._task, "max_attempts", None) if request.max_attempts is None else request.max_attempts
        priority = request.priority if request.priority is not None else (getattr(self._task, "priority", None) or 0)
        queue = request.queue or queue_for(self._task, cost) or self._default_queue
        return Submission(
            id=id, task=self._name, queue=queue, owner=owner,
            message=Message(self._headers(id, shown), _properties(id, priority), (body + _EMBED).decode()),
            args=shown, priority=priority, cost=as_column(cost), run_at=request.run_at, expires_at=request.expires_at,
            max_attempts=limit, tags=request.tags, root=id, idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint,
        )  # fmt: skip

    def _headers(self, id: str, shown: str) -> str:
        task = self._task
        return as_json({
            "lang": "py", "task": self._name, "id": id, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [task.time_limit, task.soft_time_limit], "root_id": id,
            "parent_id": None, "argsrepr": "()", "kwargsrepr": shown, "origin": _ORIGIN,
            "ignore_result": bool(task.ignore_result), "replaced_task_nesting": 0, "stamped_headers": None,
            "stamps": {},
        })  # fmt: skip

    def _bound(self, raw: bytes) -> tuple[bytes | None, bytes | None]:
        """Check raw arguments; return them as (array, None) or, wherever they have names, (None, object)."""
        raw = raw.strip()
        if raw[:1] == b"[":
            parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
            if self._open_list or self._positional_only:
                self._check_list(len(parts))
                return raw, None
            if len(parts) > len(self._names):
                raise InvalidArguments.of(
                    Fault(f"/args/{place}", f"is one too many: {self._name} takes {len(self._names)}")
                    for place in range(len(self._names), len(parts))
                )
            pairs = zip(self._names, parts, strict=False)
            raw = b"{" + b",".join(msgspec.json.encode(name) + b":" + bytes(part) for name, part in pairs) + b"}"
        elif raw[:1] != b"{":
            raise InvalidArguments.of([Fault("/args", "must be an object (arguments by name) or an array")])
        try:
            self._model.__pydantic_validator__.validate_json(raw, strict=True)
        except ValidationError as error:
            raise InvalidArguments.of(self._fault(fault) for fault in error.errors()) from None
        return None, raw

    def _check_list(self, count: int) -> None:
        needed = sum(
            parameter.default is parameter.empty for parameter in self._parameters if parameter.name in self._names
        )
        if count < needed:
            missing = self._names[count:needed]
            raise InvalidArguments.of(
                Fault(f"/args/{count + i}", f"is missing: {name}") for i, name in enumerate(missing)
            )
        if count > len(self._names) and not self._open_list:
            raise InvalidArguments.of([Fault(f"/args/{len(self._names)}", "is one too many")])

    def _fault(self, fault: Any) -> Fault:
        path = "/args" + "".join(f"/{part}" for part in fault["loc"])
        if fault["type"] == "missing":
            return Fault(path, "is missing")
        if fault["type"] == "extra_forbidden":
            takes = ", ".join(self._names) or "no arguments"
            return Fault(path, f"is not an argument of {self._name}, which takes {takes}")
        message = str(fault["msg"])
        return Fault(path, message[:1].lower() + message[1:])

    def _measured(self, arguments: bytes | None, keywords: bytes | None) -> float | None:
        if getattr(self._task, "cost", None) is None:
            return None
        return cost_of(self._task, msgspec.json.decode(arguments or b"[]"), msgspec.json.decode(keywords or b"{}"))

    def _shown(self, arguments: bytes | None, keywords: bytes | None) -> Any:
        if keywords is not None:
            return msgspec.json.decode(keywords)
        return arguments_by_name(self._task, msgspec.json.decode(arguments or b"[]"), {})

    @cached_property
    def _default_queue(self) -> str:
        own = getattr(self._task, "own_queue", None)
        if own is not None:
            return str(own)
        route = self._app.amqp.router.route({}, self._name)
        queue = route.get("queue") or self._app.amqp.default_queue
        return str(getattr(queue, "name", queue))

    @cached_property
    def _model(self) -> type[BaseModel]:
        """The arguments as a pydantic model; what pydantic cannot describe is taken as it is."""
        try:
            hints = get_type_hints(self._task.run, include_extras=True)
        except Exception:
            hints = {}
        try:
            return self._build(hints)
        except (PydanticSchemaGenerationError, TypeError):
            return self._build({})

    def _build(self, hints: dict[str, Any]) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for place, parameter in enumerate(self._parameters):
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[f"a{place}"] = (hints.get(parameter.name, Any), Field(default, alias=parameter.name))
        extra: Any = "allow" if self._open_object else "forbid"
        return create_model(self._name, __config__=ConfigDict(extra=extra), **fields)


def _properties(id: str, priority: int) -> str:
    return f'{{"correlation_id":"{id}","reply_to":"","priority":{priority}}}'
