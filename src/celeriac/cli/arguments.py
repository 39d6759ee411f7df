"""What people type for a task's arguments, durations and moments, turned into values. Pure but for `@file`.

`name=value` pairs become an object: what is typed for a text parameter is text, elsewhere JSON is JSON
and anything else is text. `@file` is the text of a file (`@-` of stdin). Used by `submit` and by the filters of `jobs`.
"""

import json
import math
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def arguments(pairs: tuple[str, ...], whole: str | None, texts: frozenset[str] = frozenset()) -> Any:
    """Return the arguments for a task: `whole` (JSON, an object or an array) with the pairs put on top.

    `texts` names the parameters that take text: what is typed for them is text, whatever it looks like.
    Raises click.UsageError, naming the piece that cannot be understood.
    """
    given: Any = {} if whole is None else _whole(whole)
    if not pairs:
        return given
    if not isinstance(given, dict):
        raise click.UsageError("--args is an array, so there is no place for name=value. Give everything in --args.")
    named: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{pair!r} is not name=value. Arguments without names go into --args '[…]'.")
        if name in named:
            raise click.UsageError(f"{name!r} is given twice.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"The value of {name!r} is not UTF-8 text.") from None
        named[name] = value(text, name in texts)
    return {**given, **named}


def value(text: str, is_text: bool = False) -> Any:
    """Return what a typed value means; `is_text` when the parameter takes nothing but text."""
    if text.startswith("@"):
        return _text_of(text[1:])
    if is_text:
        return text
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except ValueError:
        return text


def seconds(text: str) -> float:
    """Return a duration (`90`, `1.5h`, `10m`) in seconds. Raises click.BadParameter."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration. Write seconds, or 30s, 10m, 2h, 1d.")
    return float(found[1]) * _UNITS[found[2] or "s"]


def moment(text: str, towards: int = 1) -> str:
    """Return a moment as RFC 3339: one that was typed (local time if no zone is given), or a duration from now.

    `towards` is 1 when a duration counts into the future and -1 when into the past. Raises click.BadParameter.
    """
    if _DURATION.fullmatch(text.strip()):
        return (datetime.now().astimezone() + towards * timedelta(seconds=seconds(text))).isoformat()
    try:
        return datetime.fromisoformat(text.strip()).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a moment. Write 2030-01-31T09:00, or a duration as 10m or 2h."
        ) from None


def _whole(text: str) -> Any:
    text = _text_of(text[1:]) if text.startswith("@") else text
    try:
        given = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise click.UsageError(f"--args is not JSON: {error}.") from None
    if not isinstance(given, dict | list):
        raise click.UsageError("--args must be a JSON object (arguments by name) or an array.")
    return given


def _text_of(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise click.UsageError(f"The file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"The file {path or 'on stdin'} is not UTF-8 text.") from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
