"""Stored JSON as people should see it.

Celery's serialiser wraps dates, UUIDs and decimals as {"__type__", "__value__"} and writes NaN,
which is not JSON. Here they become plain values. What has none of this (nearly everything) is
passed on byte for byte, so that no number loses a digit.
"""

import json
from typing import Any
from uuid import UUID

import msgspec

NULL = msgspec.Raw(b"null")
_MARKS = ("__type__", "NaN", "Infinity")


def plain(text: str | None) -> msgspec.Raw:
    """Return stored JSON text as JSON to send."""
    if text is None:
        return NULL
    if not any(mark in text for mark in _MARKS):
        return msgspec.Raw(text.encode("utf-8", "surrogatepass"))
    try:
        value = json.loads(text, object_hook=_unwrap, parse_constant=str)
        return msgspec.Raw(json.dumps(value, allow_nan=False).encode())
    except (ValueError, RecursionError):  # a number of thousands of digits, or a deep nest: shown as text
        return msgspec.Raw(msgspec.json.encode(text))


def _unwrap(value: dict[str, Any]) -> Any:
    if value.keys() != {"__type__", "__value__"}:
        return value
    kind, inner = value["__type__"], value["__value__"]
    if kind == "uuid" and isinstance(inner, dict):
        try:
            return str(UUID(inner.get("hex")))
        except (ValueError, TypeError, AttributeError):
            return inner
    return inner
