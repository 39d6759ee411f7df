"""Request bodies: read with a limit, taken as JSON of a shape, all faults told at once.

A body that is too long is refused by its declared length, or else as soon as it grows too
long. The fast way decodes straight into the shape; only a wrong body is looked at again,
field by field, to say everything that is wrong with it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
from starlette.types import Receive, Scope

from celeriac.errors import BodyTooLarge, CeleriacError, Fault, NotJson, UnsupportedMediaType

_PLACE = re.compile(r" - at `\$(.*)`$")
_INDEX = re.compile(r"\[(\d+)\]")
_HALF = re.compile("[\ud800-\udfff]")
_WORDS = {
    "int | null": "an integer",
    "float | null": "a number",
    "str | null": "a text",
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "array": "a list",
    "object": "an object",
    "bool": "true or false",
}


class Disconnected(CeleriacError):
    """The client went away before its request was read."""

    code, status, title = "disconnected", 400, "The client went away"


async def read_json(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the body of a request that is declared as JSON.

    Raises:
        UnsupportedMediaType, BodyTooLarge.
    """
    declared, length = "", 0
    for name, value in scope["headers"]:
        if name == b"content-type":
            declared = str(value, "latin-1")
        elif name == b"content-length":
            length = int(value) if value.isdigit() else 0
    if declared != "application/json" and declared.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(declared)
    if length > limit:
        raise BodyTooLarge(limit)
    return await _read(receive, limit)


async def _read(receive: Receive, limit: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected("The client went away before its request was complete.")
        part = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > limit:
            raise BodyTooLarge(limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def explain(body: bytes, shape: type[msgspec.Struct]) -> tuple[dict[str, Any], list[Fault]]:
    """Look closely at a body that does not decode; return the fields that are right, and all faults of the others.

    Raises:
        NotJson: saying where it stops being JSON.
    """
    document = _parsed(body)
    if not isinstance(document, dict):
        return {}, [Fault("", "must be an object")]
    kinds = get_type_hints(shape, include_extras=True)
    required = {field.name for field in msgspec.structs.fields(shape) if field.required}
    faults = [Fault(f"/{name}", "is missing") for name in sorted(required - document.keys())]
    good = {}
    for name, value in document.items():
        if name not in kinds:
            faults.append(Fault(f"/{name}", f"is not a field here; the fields are {', '.join(kinds)}"))
            continue
        wrong = list(_half_characters(value, f"/{name}")) or _misfits(value, kinds[name], f"/{name}")
        faults += wrong
        if not wrong:
            good[name] = msgspec.Raw(json.dumps(value).encode()) if kinds[name] is msgspec.Raw else value
    return good, faults


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise NotJson(f"The body is not JSON: byte {error.start} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise NotJson(f"The body is not JSON: {what} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise NotJson("The body is not JSON that can be read: it is nested too deeply.") from None
    except ValueError as error:
        raise NotJson(f"The body is not JSON that can be read: {error}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON. Send null or a text instead.")


def _half_characters(value: Any, path: str) -> Iterator[Fault]:
    """Find texts with half of a surrogate pair: JSON can spell it, UTF-8 cannot."""
    if isinstance(value, str):
        if _HALF.search(value):
            yield Fault(path, "holds half of a surrogate pair (such as \\ud800), which is not a character")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _half_characters(item, f"{path}/{place}")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _half_characters(name, path)
            yield from _half_characters(item, f"{path}/{name}")


def _misfits(value: Any, kind: Any, path: str) -> list[Fault]:
    if kind is msgspec.Raw:
        return []
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        told = str(error)
        place = _PLACE.search(told)
        inner = "".join(f"/{index}" for index in _INDEX.findall(place[1])) if place else ""
        return [Fault(path + inner, _sentence(_PLACE.sub("", told)))]
    return []


def _sentence(told: str) -> str:
    for word, name in _WORDS.items():
        told = told.replace(f"`{word}`", name)
    told = told.replace("`", "").replace(" | ", " or ").replace(", got ", ", not ")
    return "must be " + told.removeprefix("Expected ")
