"""Redaction: the values that nobody should read are hidden by the names they go under.

Pure. What a list, a job, an event, a header or a message of an error shows of arguments passes
here first; the worker alone gets the real values. Names are compared without case, hyphens and
underscores, so that `*api_key*` hides `apiKey` and `X-API-Key` too. What cannot be looked
through is hidden whole. Called by `tasks` (HTTP) and `sender` (`.delay()`).
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Any

import msgspec

REDACTED = "[redacted]"
_MARK = b'"[redacted]"'
_PIECES = re.compile(r"[a-z0-9]+")
# A value that goes by a name in a line of text, as in `token=…`, `"token": "…"` and `Authorization: Bearer …`.
_NAMED = re.compile(r"""([\w-]+)(["']?\s*[:=]\s*)("[^"]*"|'[^']*'|(?:Bearer |Basic )?[^\s,;&)}\]]+)""", re.IGNORECASE)
_CHOICE = re.compile(r"\[.*?\]")
_LOWER = bytes(range(256)).lower()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_name = msgspec.json.Encoder().encode


class Redaction:
    """Knows which names hide their values, from shell patterns."""

    def __init__(self, patterns: Iterable[str]) -> None:
        plain = sorted({_plain(pattern) for pattern in patterns})
        match = re.compile("|".join(map(translate, plain)) or r"(?!)").match
        self.hides = lru_cache(4096)(lambda name: match(_plain(name)) is not None)
        # What a text that hides nothing cannot hold; a pattern without such a piece makes every text suspect.
        pieces = {max(_PIECES.findall(_CHOICE.sub("*", pattern)), key=len, default="") for pattern in plain}
        pieces |= {"\\u"}  # which can spell any name
        self._suspicious = re.compile("|".join(re.escape(piece) for piece in sorted(pieces)).encode()).search

    def suspects(self, text: bytes) -> bool:
        """Say whether JSON may hold a name that hides its value; quick, and never wrongly no."""
        return self._suspicious(text.translate(_LOWER, b"-_")) is not None

    def positional(self, names: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """Return arguments with those replaced that stand where a hiding name does."""
        hidden = [self.hides(name) for name in names[: len(arguments)]]
        return [
            REDACTED if place < len(hidden) and hidden[place] else argument for place, argument in enumerate(arguments)
        ]

    def value(self, value: Any, depth: int = 200) -> Any:
        """Return a value as JSON knows it with what is hidden replaced."""
        if isinstance(value, dict):
            if not depth:
                return REDACTED
            return {
                name: REDACTED if self.hides(str(name)) else self.value(item, depth - 1) for name, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(item, depth - 1) for item in value] if depth else REDACTED
        return value

    def line(self, text: str) -> str:
        """Return a line of a log with the values replaced that stand behind a hiding name."""
        if not self.suspects(text.encode("utf-8", "replace")):
            return text
        return _NAMED.sub(lambda found: found[1] + found[2] + REDACTED if self.hides(found[1]) else found[0], text)

    def raw(self, text: bytes, depth: int = 200) -> bytes:
        """Return JSON with what is hidden replaced; every other value stays byte for byte."""
        if not self.suspects(text):
            return text
        first = text.lstrip()[:1]
        if first not in (b"{", b"["):
            return text
        if not depth:
            return _MARK
        if first == b"[":
            return b"[" + b",".join(self.raw(bytes(item), depth - 1) for item in _array(text)) + b"]"
        return b"{" + b",".join(
            _name(name) + b":" + (_MARK if self.hides(name) else self.raw(bytes(item), depth - 1))
            for name, item in _object(text).items()
        ) + b"}"  # fmt: skip


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
