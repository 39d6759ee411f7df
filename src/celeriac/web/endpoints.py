"""The routes that submit jobs, for the OpenAPI document: they read their bodies themselves, so FastAPI knows none.

Every installation has the three in SUBMITS. What this one offers, one address for each task
with the schema of its arguments, is `typed`; it is shown to who may see the tasks.
Called by `openapi.py` and `pages/docs.py`.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from typing import Any
from urllib.parse import quote

from celeriac.app import TaskInfo
from celeriac.web.api import PREFIX
from celeriac.web.api.typed import OPTIONS

Document = dict[str, Any]

_KEY = {
    "name": "Idempotency-Key", "in": "header", "required": False, "description": "Your name for this request.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}  # fmt: skip
_ANSWERS = (
    "With an `Idempotency-Key` a repeated request answers {first} again, with `Idempotency-Replayed: true`; "
    "use one whenever you might send a request twice."
)
_SCHEMAS: dict[str, Document] = {
    "queue": {"type": "string", "minLength": 1, "maxLength": 200},
    "priority": {"type": "integer", "minimum": 0, "maximum": 9},
    "run_at": {"type": "string", "format": "date-time"},
    "delay": {"type": "number", "minimum": 0},
    "expires_at": {"type": "string", "format": "date-time"},
    "max_attempts": {"type": "integer", "minimum": 1, "maximum": 1000},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 64}, "maxItems": 20},
    "unique_key": {"type": "string", "minLength": 1, "maxLength": 255},
    "unique_window": {"type": "number", "minimum": 0},
    "time_limit": {"type": "number", "exclusiveMinimum": 0},
    "soft_time_limit": {"type": "number", "exclusiveMinimum": 0},
}
_TEXTS = {
    "queue": "Where the job waits; by default where its cost or its task leads.",
    "priority": "0 to 9, higher first.",
    "run_at": "Not before this time.",
    "delay": "Not before so many seconds have passed.",
    "expires_at": "A job that has not started by then is cancelled.",
    "max_attempts": "How often the task may be executed at most.",
    "tags": "Tags, separated by commas.",
    "unique_key": "While a job of yours with this key has not ended, it is answered instead.",
    "unique_window": "Seconds for which the key stands even if its job has ended.",
    "time_limit": "Seconds after which the task is killed.",
    "soft_time_limit": "Seconds after which the task gets an exception.",
}
_PARAMETERS = [
    {
        "name": name, "in": "query", "required": False, "description": _TEXTS[name], "schema": _SCHEMAS[name],
        **({"style": "form", "explode": False} if name == "tags" else {}),
    }
    for name in OPTIONS
]  # fmt: skip


def _body(schema: Document) -> Document:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


SUBMITS: dict[str, Document] = {
    "/jobs": {
        "description": f"Answers once the job is written and safe. {_ANSWERS.format(first='the first job')}",
        "parameters": [_KEY],
        "requestBody": _body({"$ref": "#/components/schemas/JobBody"}),
    },
    "/jobs/batch": {
        "description": (
            "Accepts all of up to 1,000 jobs, or none: everything wrong with any of them is told at once. "
            f"Answers once they are written, with one commit. {_ANSWERS.format(first='the first batch')}"
        ),
        "parameters": [_KEY],
        "requestBody": _body({"$ref": "#/components/schemas/BatchBody"}),
    },
    "/tasks/{task}/jobs": {
        "description": f"The body is the task's arguments, by name. {_ANSWERS.format(first='the first job')}",
        "parameters": [
            {"name": "task", "in": "path", "required": True, "description": "Name of the task.",
             "schema": {"type": "string"}},
            _KEY,
            *_PARAMETERS,
        ],
        "requestBody": _body({"type": "object", "title": "Arguments", "properties": {}}),
    },
}  # fmt: skip


def typed(document: Document, infos: Iterable[TaskInfo]) -> Document:
    """Return the document with an address for each of these tasks, its body described by the task's signature."""
    made = {**document, "paths": dict(document["paths"]), "components": dict(document["components"])}
    schemas = made["components"]["schemas"] = dict(document["components"]["schemas"])
    like = document["paths"][f"{PREFIX}/tasks/{{task}}/jobs"]["post"]
    for info in infos:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", info.name)
        while name_of(name) in schemas:
            name += "_"
        address = f"{PREFIX}/tasks/{quote(info.name, safe='')}/jobs"
        schemas[name_of(name)] = _moved(info.schema, name, schemas)
        first, _, rest = info.description.partition("\n")
        made["paths"][address] = {"post": {
            **like,
            "summary": first or f"Submit {info.name}",
            "description": rest.strip() or like["description"],
            "operationId": f"submit_{name}",
            "tags": ["tasks"],
            "parameters": [_KEY, *_PARAMETERS],
            "requestBody": _body({"$ref": f"#/components/schemas/{name_of(name)}"}),
            "x-curl": like["x-curl"].replace("$TASK", quote(info.name, safe="")),
        }}  # fmt: skip
    return made


def name_of(task: str, model: str = "arguments") -> str:
    """Return how a schema of a task is called: no two tasks share one, and none is called like one of ours."""
    return f"{task}.{model}"


def _moved(schema: Document, task: str, schemas: Document) -> Document:
    """Move the models a schema defines for itself to where all schemas are, and lead its references there."""
    moved: Document = deepcopy(schema)
    held = moved.pop("$defs", {})

    def lead(part: Any) -> None:
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            lead(inner)
        if isinstance(part, dict) and isinstance(part.get("$ref"), str):
            part["$ref"] = "#/components/schemas/" + name_of(task, part["$ref"].rpartition("/")[2])

    for name, model in held.items():
        lead(model)
        schemas[name_of(task, name)] = model
    lead(moved)
    return moved
