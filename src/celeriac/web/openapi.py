"""The OpenAPI document: what FastAPI knows of the routes, with the shapes of answers and one example each.

`/openapi.json` sends it, `/docs` shows it. A test fails when a route of the API has no line in
TOLD, so nothing is served that is not described.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

import celeriac
from celeriac.web.api import PREFIX
from celeriac.web.api import shapes as shape
from celeriac.web.api.batches import BatchBody, BatchJobs, BatchShape
from celeriac.web.api.operations import OperationBody, OperationPage, OperationShape
from celeriac.web.api.queries import JobFilter
from celeriac.web.api.queues import QueuePage, QueueShape
from celeriac.web.api.requests import JobBody
from celeriac.web.api.system import StatsShape
from celeriac.web.api.tokens import EndedSessions, TokenBody, TokenPage, TokenShape
from celeriac.web.endpoints import SUBMITS
from celeriac.web.permissions import PERMISSIONS
from celeriac.web.problems import MEDIA_TYPE, Problem

SHAPES = (
    JobBody,
    BatchBody,
    BatchShape,
    BatchJobs,
    shape.JobShape,
    shape.JobPage,
    shape.EventPage,
    shape.CancelledShape,
    OperationBody,
    OperationShape,
    OperationPage,
    QueueShape,
    QueuePage,
    shape.WorkerPage,
    shape.TaskPage,
    StatsShape,
    TokenBody,
    TokenShape,
    TokenPage,
    EndedSessions,
    Problem,
)

DESCRIPTION = (
    "Submit jobs, watch them, cancel them, send them through again. Send `Authorization: Bearer …` with every request. "
    f"Errors are {MEDIA_TYPE} (RFC 9457): `code` is stable, `errors` lists everything that is wrong with a request. "
    "Times are RFC 3339 in UTC."
)

# (method, path) -> (title, status, shape of the answer, the rest of a curl command)
TOLD: dict[tuple[str, str], tuple[str, str, str, str]] = {
    ("POST", "/jobs"): ("Submit a job", "202", "Job",
                        "-H 'Content-Type: application/json' -d '{\"task\": \"echo\", \"args\": {\"value\": 1}}'"),
    ("POST", "/jobs/batch"): ("Submit a batch", "202", "BatchJobs", "-H 'Content-Type: application/json'"
                              " -d '{\"jobs\": [{\"task\": \"echo\"}, {\"task\": \"echo\", \"args\": [1]}]}'"),
    ("GET", "/batches/{id}"): ("Look at a batch", "200", "Batch", ""),
    ("POST", "/tasks/{task}/jobs"): ("Submit a job of a task", "202", "Job",
                                     "-H 'Content-Type: application/json' -d '{}'"),
    ("GET", "/jobs"): ("List jobs", "200", "JobPage", "'{url}?state=queued,running&limit=10'"),
    ("GET", "/jobs/{id}"): ("Look at a job", "200", "Job", "'{url}?wait=30'"),
    ("GET", "/jobs/{id}/events"): ("Read a job's history", "200", "EventPage", ""),
    ("PUT", "/jobs/{id}/cancellation"): ("Cancel a job", "202", "Cancelled", "-X PUT"),
    ("POST", "/jobs/{id}/retries"): ("Send a job through again", "202", "Job", "-X POST"),
    ("POST", "/cancellations"): ("Cancel all that match", "202", "Operation",
                                 "-H 'Content-Type: application/json' -d '{\"filter\": {\"queue\": [\"small\"]}}'"),
    ("POST", "/retries"): ("Send all that match through again", "202", "Operation",
                           "-H 'Content-Type: application/json' -d '{\"filter\": {\"state\": [\"failed\"]}}'"),
    ("GET", "/operations"): ("List operations", "200", "OperationPage", "'{url}?limit=10'"),
    ("GET", "/operations/{id}"): ("Look at an operation", "200", "Operation", ""),
    ("GET", "/queues"): ("List queues", "200", "QueuePage", ""),
    ("GET", "/queues/{name}"): ("Look at a queue", "200", "Queue", ""),
    ("PUT", "/queues/{name}/pause"): ("Pause a queue", "200", "Queue", "-X PUT"),
    ("DELETE", "/queues/{name}/pause"): ("Resume a queue", "200", "Queue", "-X DELETE"),
    ("GET", "/workers"): ("List workers", "200", "WorkerPage", ""),
    ("GET", "/tasks"): ("List tasks", "200", "TaskPage", ""),
    ("GET", "/stats"): ("Look at the whole", "200", "Stats", "'{url}?minutes=60'"),
    ("GET", "/tokens"): ("List tokens", "200", "TokenPage", ""),
    ("POST", "/tokens"): ("Make a token", "201", "Token", "-H 'Content-Type: application/json'"
                          " -d '{\"name\": \"ci\", \"role\": \"submitter\", \"tasks\": [\"mail.*\"]}'"),
    ("DELETE", "/tokens/{id}"): ("Revoke a token", "200", "Token", "-X DELETE"),
    ("DELETE", "/sessions/{owner}"): ("End an owner's sessions", "200", "EndedSessions", "-X DELETE"),
}  # fmt: skip

# The bodies of the routes that read theirs themselves.
BODIES = {
    ("POST", "/cancellations"): "OperationBody",
    ("POST", "/retries"): "OperationBody",
    ("POST", "/tokens"): "TokenBody",
}
# What stands for {id} and {name} in an example.
VARIABLES = {
    "jobs": "$JOB", "batches": "$BATCH", "tasks": "$TASK", "operations": "$OPERATION",
    "tokens": "$TOKEN_ID", "queues": "$QUEUE",
}  # fmt: skip
_REF = "#/components/schemas/{name}"


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of the application's routes."""
    made = get_openapi(
        title="Celeriac", version=celeriac.__version__, description=DESCRIPTION,
        routes=[route for route in routes if not hasattr(route, "path") or route.path.startswith(PREFIX)],
    )  # fmt: skip
    paths = {path.replace(":path}", "}"): methods for path, methods in made["paths"].items()}
    for path, operation in SUBMITS.items():
        paths.setdefault(PREFIX + path, {})["post"] = dict(operation)
    for (method, path), told in TOLD.items():
        _describe(paths[PREFIX + path][method.lower()], method, PREFIX + path, told)
    _, schemas = msgspec.json.schema_components(SHAPES, ref_template=_REF)
    schemas["JobFilter"] = JobFilter.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))
    schemas["OperationBody"]["properties"]["filter"] = {"$ref": _REF.format(name="JobFilter")}
    made["paths"] = paths
    made["security"] = [{"token": []}, {"session": []}]
    made["components"] = {
        "schemas": schemas,
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": "celeriac"},
        },
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made).replace(b'Shape"', b'"'))
    return plain


def _describe(operation: dict[str, Any], method: str, path: str, told: tuple[str, str, str, str]) -> None:
    title, status, answer, rest = told
    operation["summary"] = title
    operation["operationId"] = title.lower().replace("'", "").replace(" ", "_")
    operation["x-permission"] = PERMISSIONS[method, path]
    operation["x-curl"] = _curl(path, rest)
    if (method, path.removeprefix(PREFIX)) in BODIES:
        schema = {"$ref": _REF.format(name=BODIES[method, path.removeprefix(PREFIX)])}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    operation["responses"] = {
        status: _response(title, answer, "application/json"),
        "default": _response("A problem", "Problem", MEDIA_TYPE),
    }


def _response(description: str, name: str, media_type: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=name)}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _curl(path: str, rest: str) -> str:
    noun = path.removeprefix(f"{PREFIX}/").partition("/")[0]
    url = "$CELERIAC" + re.sub(r"\{\w+\}", VARIABLES.get(noun, ""), path)
    target = rest.replace("'{url}", f'"{url}').replace("'", '"') if "{url}" in rest else f"{rest} {url}".strip()
    return f'curl -H "Authorization: Bearer $TOKEN" {target}'
