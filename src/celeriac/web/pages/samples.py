"""Samples: arguments that fit a task's JSON schema, for the examples of the pages.

Only what is required is there, and constraints that no sample can know (a pattern, a format of
one's own) are left to the reader. Pure. Called by `home.py` and `docs.py`.
"""

from typing import Any

_SAMPLES: dict[str, Any] = {
    "string": "text", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip
_TEXTS = {
    "date": "2030-01-31", "date-time": "2030-01-31T12:00:00Z", "time": "12:00:00Z", "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000", "email": "ann@example.org", "uri": "https://example.org/",
}  # fmt: skip
_DEEPEST = 8


def sample(schema: Any, definitions: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """Return a value that a schema takes."""
    known: dict[str, Any] = schema.get("$defs", {}) if definitions is None else definitions
    if depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return sample(known.get(str(schema["$ref"]).rpartition("/")[2], {}), known, depth + 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return sample(schema[name][0], known, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: sample(fields[name], known, depth + 1) for name in schema.get("required", []) if name in fields}
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})] * schema.get("minItems", 0)
        return [sample(item, known, depth + 1) for item in items]
    if kind == "string":
        text = _TEXTS.get(schema.get("format", ""), "text")
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    if kind in ("integer", "number"):
        return _number(schema)
    return _SAMPLES.get(kind, "text") if isinstance(kind, str) else "text"


def _number(schema: dict[str, Any]) -> Any:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    return least if most is None or least <= most else schema.get("maximum", most - 1)
