"""The documentation in the browser: the OpenAPI document, and the same as a page to read.

Nothing is loaded from elsewhere. Neither needs a login: to a stranger both say what any installation
of this version offers, and nothing about this one; who may see the tasks finds an address for each.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from celeriac.web.auth import Auth
from celeriac.web.pages import page

Document = dict[str, Any]


def routes(document: Callable[[Request], Awaitable[Document]], auth: Auth, token: str) -> list[BaseRoute]:
    """Return the routes of the documentation."""

    async def openapi(request: Request) -> Response:
        return JSONResponse(await document(request))

    async def docs(request: Request) -> Response:
        made = await document(request)
        return page(
            "docs.html", document=made, operations=operations(made), address=str(request.base_url).rstrip("/"),
            logged_in=await auth.is_open(request.scope), kind=kind, token=token,
        )  # fmt: skip

    return [Route("/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]


def operations(document: Document) -> list[dict[str, Any]]:
    """Return every operation with what the page shows of it, in the document's order."""
    schemas = document["components"]["schemas"]
    return [
        {
            **operation,
            "method": method.upper(),
            "path": path,
            "fields": _fields(operation, schemas),
            "answer": _answer(operation, schemas),
        }
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _fields(operation: dict[str, Any], schemas: Document) -> list[dict[str, str]]:
    """Return the parameters and the fields of the body as rows: name, place, type, description."""
    rows = [
        {
            "name": given["name"],
            "place": given["in"],
            "kind": kind(given["schema"]),
            "text": given.get("description", ""),
        }
        for given in operation.get("parameters", [])
    ]
    body = operation.get("requestBody")
    if body:
        schema = _resolve(body["content"]["application/json"]["schema"], schemas)
        required = schema.get("required", [])
        rows += [
            {
                "name": name,
                "place": "body",
                "kind": kind(field),
                "text": " ".join(["Required."] * (name in required) + [field.get("description", "")]),
            }
            for name, field in schema["properties"].items()
        ]
    return rows


def _answer(operation: dict[str, Any], schemas: Document) -> dict[str, Any]:
    status, told = next(iter(operation["responses"].items()))
    schema = _resolve(told["content"]["application/json"]["schema"], schemas)
    return {"status": status, "name": schema["title"], "text": schema.get("description", "")}


def _resolve(schema: dict[str, Any], schemas: Document) -> dict[str, Any]:
    found: dict[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def kind(schema: dict[str, Any]) -> str:
    """Return a schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    bounds = [f"{word} {schema[name]}" for name, word in _BOUNDS.items() if name in schema]
    return " ".join([schema.get("format") or schema.get("type") or "any JSON", *bounds])


_BOUNDS = {"minimum": "≥", "maximum": "≤", "maxLength": "up to"}
