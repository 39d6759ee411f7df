"""Previews: what a list shows of arguments and results, and texts that every database takes.

Pure. Whoever writes a row asks here first; `jobs` passes the names on.
"""

import re
from itertools import islice
from typing import Any

import msgspec

PREVIEW_BYTES = 1024
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str, limit: int = 1_000_000) -> str:
    """Return text that every database takes: no NUL, no lone surrogates, at most `limit` characters."""
    text = _UNSTORABLE.sub("\ufffd", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_name(text: object, limit: int) -> bool:
    """Say whether a value is a text of 1 to `limit` characters that every database takes."""
    return isinstance(text, str) and text != "" and storable(text, limit) == text


def preview(value: Any) -> str:
    """Return a value as JSON of at most PREVIEW_BYTES, long parts cut and marked with an ellipsis."""
    text = msgspec.json.encode(_shorten(value, 4)).decode()
    if len(text.encode()) <= PREVIEW_BYTES:
        return text
    return msgspec.json.encode(text[: PREVIEW_BYTES // 4] + "…").decode()


def _shorten(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 120 else value[:119] + "…"
    if isinstance(value, (list, tuple, dict)) and depth == 0:
        return "…"
    if isinstance(value, dict):
        pairs = islice(value.items(), 20)
        return {str(name)[:120]: _shorten(item, depth - 1) for name, item in pairs} | (
            {"…": "…"} if len(value) > 20 else {}
        )
    if isinstance(value, (list, tuple)):
        return [_shorten(item, depth - 1) for item in value[:20]] + (["…"] if len(value) > 20 else [])
    return value
