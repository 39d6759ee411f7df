"""The OpenAPI document: what FastAPI knows of the routes, with the shapes of answers and one example each.

`/openapi.json` sends it, `/docs` shows it. A test fails when a route of the API has no line in
TOLD, so nothing is served that is not described.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

import celeriac
from celeriac.web.api import PREFIX
from celeriac.web.api import shapes as shape
from celeriac.web.api.submissions import JobBody
from celeriac.web.permissions import PERMISSIONS
from celeriac.web.problems import MEDIA_TYPE, Problem

SHAPES = (
    JobBody,
    shape.JobShape,
    shape.JobPage,
    shape.EventPage,
    shape.QueuePage,
    shape.WorkerPage,
    shape.TaskPage,
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
    ("GET", "/jobs"): ("List jobs", "200", "JobPage", "'{url}?state=queued,running&limit=10'"),
    ("GET", "/jobs/{id}"): ("Look at a job", "200", "Job", "'{url}?wait=30'"),
    ("GET", "/jobs/{id}/events"): ("Read a job's history", "200", "EventPage", ""),
    ("PUT", "/jobs/{id}/cancellation"): ("Cancel a job", "202", "Job", "-X PUT"),
    ("POST", "/jobs/{id}/retries"): ("Send a job through again", "202", "Job", "-X POST"),
    ("GET", "/queues"): ("List queues", "200", "QueuePage", ""),
    ("GET", "/workers"): ("List workers", "200", "WorkerPage", ""),
    ("GET", "/tasks"): ("List tasks", "200", "TaskPage", ""),
}  # fmt: skip

_SUBMIT: dict[str, Any] = {
    "description": (
        "Answers once the job is written and safe. With an `Idempotency-Key` a repeated request answers the first job "
        "again, with `Idempotency-Replayed: true`; use one whenever you might send a request twice."
    ),
    "parameters": [
        {"name": "Idempotency-Key", "in": "header", "required": False, "description": "Your name for this request.",
         "schema": {"type": "string", "minLength": 1, "maxLength": 255}},
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobBody"}}},
    },
}  # fmt: skip


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of the application's routes."""
    made = get_openapi(
        title="Celeriac", version=celeriac.__version__, description=DESCRIPTION,
        routes=[route for route in routes if not hasattr(route, "path") or route.path.startswith(PREFIX)],
    )  # fmt: skip
    paths = {path.replace("{id:path}", "{id}"): methods for path, methods in made["paths"].items()}
    paths.setdefault(f"{PREFIX}/jobs", {})["post"] = dict(_SUBMIT)
    for (method, path), told in TOLD.items():
        _describe(paths[PREFIX + path][method.lower()], method, PREFIX + path, told)
    _, schemas = msgspec.json.schema_components(SHAPES, ref_template="#/components/schemas/{name}")
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
    operation["responses"] = {
        status: _response(title, answer, "application/json"),
        "default": _response("A problem", "Problem", MEDIA_TYPE),
    }


def _response(description: str, name: str, media_type: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _curl(path: str, rest: str) -> str:
    url = "$CELERIAC" + path.replace("{id}", "$JOB")
    target = rest.replace("'{url}", f'"{url}').replace("'", '"') if "{url}" in rest else f"{rest} {url}".strip()
    return f'curl -H "Authorization: Bearer $TOKEN" {target}'
