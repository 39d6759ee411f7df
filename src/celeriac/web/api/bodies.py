"""Request bodies: read with a limit, taken as JSON of a shape, all faults told at once.

A body that is too long is refused by its declared length, or else as soon as it grows too
long. The fast way decodes straight into the shape; only a wrong body is looked at again,
field by field, to say everything that is wrong with it.
"""

import asyncio
import json
import math
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from starlette.types import Message, Receive, Scope

from celeriac.errors import (
    BodyTimeout,
    BodyTooLarge,
    CeleriacError,
    Fault,
    InvalidRequest,
    NotJson,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

Shape = TypeVar("Shape", bound=msgspec.Struct)

# A body may take so long, and a second more for each so many bytes that have come.
STALL_SECONDS = 30.0
SLOWEST_PER_SECOND = 16 * 1024
_PLACE = re.compile(r" - at `\$(.*)`$")
_INDEX = re.compile(r"\[(\d+)\]|\.(\w+)")
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


async def read_json(scope: Scope, receive: Receive, limit: int, *, may_be_empty: bool = False) -> bytes:
    """Return the body of a request that is declared as JSON; one that may be empty needs no declaration then.

    Raises:
        UnsupportedMediaType, UnsupportedEncoding, BodyTooLarge, BodyTimeout, InvalidRequest: with two Idempotency-Keys.
    """
    declared, encoding, length, keys = "", "", 0, 0
    for name, value in scope["headers"]:
        if name == b"content-type":
            declared = str(value, "latin-1")
        elif name == b"content-length":
            length = int(value) if value.isdigit() else 0
        elif name == b"content-encoding":
            encoding = str(value, "latin-1")
        elif name == b"idempotency-key":
            keys += 1
    if keys > 1:
        raise InvalidRequest.of([Fault("Idempotency-Key", "is given twice")])
    if may_be_empty and not declared and not length and not await _read(receive, limit):
        return b""
    if declared != "application/json":
        _check_type(declared)
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding("Content-Encoding", encoding)
    if length > limit:
        raise BodyTooLarge(limit)
    return await _read(receive, limit)


def _check_type(declared: str) -> None:
    kind, _, rest = declared.partition(";")
    if kind.strip().lower() != "application/json":
        raise UnsupportedMediaType(declared)
    for name, _, value in (part.partition("=") for part in rest.split(";")):
        if name.strip().lower() == "charset" and value.strip(' "').lower() not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedEncoding("Content-Type", declared)


async def _read(receive: Receive, limit: int) -> bytes:
    message = _there(receive)
    if message is not None and not message.get("more_body", False) and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body
    return await _read_on(receive, limit, message)


def _there(receive: Receive) -> Message | None:
    """Return what the server has at hand already, as nearly always, or None: a timeout costs five microseconds."""
    waiting = receive().__await__()
    try:
        next(waiting)
    except StopIteration as done:
        message: Message = done.value
        return message
    waiting.close()  # it waits for more to come, and has taken nothing
    return None


async def _read_on(receive: Receive, limit: int, message: Message | None) -> bytes:
    parts, size, more = [], 0, True
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(began + STALL_SECONDS) as deadline:
            while more:
                message = await receive() if message is None else message
                if message["type"] != "http.request":
                    raise Disconnected("The client went away before its request was complete.")
                part = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(part)
                if size > limit:
                    raise BodyTooLarge(limit)
                parts.append(part)
                message = None
                if more:
                    deadline.reschedule(began + STALL_SECONDS + size / SLOWEST_PER_SECOND)
    except TimeoutError:
        raise BodyTimeout(size) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def read_shape(scope: Scope, receive: Receive, limit: int, shape: type[Shape]) -> Shape:
    """Return the body of a request as a shape.

    Raises:
        UnsupportedMediaType, BodyTooLarge, NotJson, InvalidRequest: with all that is wrong.
    """
    body = await read_json(scope, receive, limit)
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _, faults = explain(body, shape)
        raise InvalidRequest.of(faults or [Fault("", "cannot be read")]) from None


def explain(body: bytes, shape: type[msgspec.Struct]) -> tuple[dict[str, Any], list[Fault]]:
    """Look closely at a body that does not decode; return the fields that are right, and all faults of the others.

    Raises:
        NotJson: saying where it stops being JSON.
    """
    return explained(parsed(body), shape)


def explained(document: Any, shape: type[msgspec.Struct], at: str = "") -> tuple[dict[str, Any], list[Fault]]:
    """Look closely at a parsed body, or at the part of it at a path, as `explain` does."""
    if not isinstance(document, dict):
        return {}, [Fault(at, "must be an object")]
    kinds = get_type_hints(shape, include_extras=True)
    required = {field.name for field in msgspec.structs.fields(shape) if field.required}
    faults = [Fault(f"{at}/{name}", "is missing") for name in sorted(required - document.keys())]
    good = {}
    for name, value in document.items():
        if name not in kinds:
            faults.append(Fault(f"{at}/{name}", f"is not a field here; the fields are {', '.join(kinds)}"))
            continue
        wrong = list(_unkept(value, f"{at}/{name}")) or _misfits(value, kinds[name], f"{at}/{name}")
        faults += wrong
        if not wrong:
            good[name] = msgspec.Raw(json.dumps(value).encode()) if kinds[name] is msgspec.Raw else value
    return good, faults


def parsed(body: bytes) -> Any:
    """Return a body as Python objects. Raises NotJson, saying where it stops being JSON."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise NotJson(f"The body is not JSON: byte {error.start} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise NotJson(f"The body is not JSON: {what} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise NotJson("The body is not JSON that can be read: it is nested too deeply.") from None
    except ValueError:
        raise NotJson("The body is not JSON that can be read: a number in it has too many digits.") from None


def _refuse(constant: str) -> None:
    raise NotJson(f"The body is not JSON that can be read: {constant} is not JSON. Send null or a text instead.")


def _unkept(value: Any, path: str) -> Iterator[Fault]:
    """Find what JSON can spell and nobody can keep: numbers without end, and half of a surrogate pair."""
    if isinstance(value, float) and math.isinf(value):
        yield Fault(path, "is a number that is too large")
    if isinstance(value, str):
        if _HALF.search(value):
            yield Fault(path, "holds half of a surrogate pair (such as \\ud800), which is not a character")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _unkept(item, f"{path}/{place}")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unkept(name, path)
            yield from _unkept(item, f"{path}/{name}")


def _misfits(value: Any, kind: Any, path: str) -> list[Fault]:
    if kind is msgspec.Raw:
        return []
    inner = _within(kind, msgspec.Struct)
    if inner is not None and isinstance(value, dict):
        return explained(value, inner, path)[1]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        told = str(error)
        if told.startswith("Invalid enum value"):
            names = ", ".join(str(each.value) for each in _within(kind, Enum) or ())
            return [Fault(path, f"must be one of {names}, not {str(value)[:40]!r}")]
        place = _PLACE.search(told)
        inner = "".join(f"/{index or name}" for index, name in _INDEX.findall(place[1])) if place else ""
        return [Fault(path + inner, _sentence(_PLACE.sub("", told)))]
    return []


def _within(kind: Any, sort: type) -> Any:
    """Return the class of this sort that a type is or allows, or None."""
    if isinstance(kind, type) and issubclass(kind, sort):
        return kind
    parts = () if get_origin(kind) is list else get_args(kind)
    return next((found for part in parts if (found := _within(part, sort))), None)


def _sentence(told: str) -> str:
    for word, name in _WORDS.items():
        told = told.replace(f"`{word}`", name)
    told = told.replace("`", "").replace(" | ", " or ").replace(", got ", ", not ")
    for sign, words in ((" >= ", " at least "), (" <= ", " at most "), (" > ", " more than ")):
        told = told.replace(sign, words)
    return "must be " + told.removeprefix("Expected ").removesuffix(".0")
