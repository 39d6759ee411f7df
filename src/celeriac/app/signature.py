"""A task's signature: which arguments it takes, as a check of raw JSON and as a JSON schema.

Arguments are checked against names and annotations, all faults at once with their paths, and
stay the bytes they came as: they are neither coerced nor encoded anew. Descriptions come from
the docstring (Google's `Args:` or Sphinx's `:param name:`). Called by `tasks`.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, get_type_hints

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from celeriac.app.redaction import Redaction
from celeriac.errors import Fault, InvalidArguments

_SIMPLE = [str, int, float, bool, None, list, dict, tuple, bytes, Any, inspect.Parameter.empty]
_TEXT = re.compile(r"^\s*(?::param\s+(?:[^:]*\s)?)?\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s+(\S.*)$")
_OWN_MESSAGES = ("value_error", "assertion_error")  # written by a validator of the user's, out of who knows what
_encode = msgspec.json.encode


class Schemas(GenerateJsonSchema):
    """pydantic's JSON schemas, in which what JSON cannot describe is just anything."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """Describe nothing, where pydantic would give up on the whole."""
        return {}


class Signature:
    """The parameters of one task's function."""

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.name = name
        self._run = run
        self._parameters = list(inspect.signature(run).parameters.values())
        kinds = {parameter.kind for parameter in self._parameters}
        self.open_list = inspect.Parameter.VAR_POSITIONAL in kinds
        self._open_object = inspect.Parameter.VAR_KEYWORD in kinds
        self._unnamed = [
            parameter.name for parameter in self._parameters if parameter.kind is parameter.POSITIONAL_ONLY
        ]
        self.names = [
            parameter.name
            for parameter in self._parameters
            if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        self.redaction = Redaction(())  # whose values no message may tell; `tasks` sets it

    def bound(self, raw: bytes) -> tuple[bytes | None, bytes | None]:
        """Check raw arguments; return them as an array and an object: wherever they have names, as the object alone.

        Raises InvalidArguments.
        """
        raw = raw.strip()
        if raw[:1] == b"[":
            parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
            if self.open_list or self._unnamed:
                self._check_list(parts)
                return raw, None
            if len(parts) > len(self.names):
                raise InvalidArguments.of(
                    Fault(f"/args/{place}", f"is one too many: {self.name} takes {len(self.names)}")
                    for place in range(len(self.names), len(parts))
                )
            raw = self._named(parts)
        elif raw[:1] != b"{":
            raise InvalidArguments.of([Fault("/args", "must be an object (arguments by name) or an array")])
        self._check(self.model.__pydantic_validator__, raw)
        return self._without_names(raw) if self._unnamed else (None, raw)

    def _check(self, validator: Any, raw: bytes, first: int = 0) -> None:
        try:
            validator.validate_json(raw, strict=True)
        except ValidationError as error:
            raise InvalidArguments.of(self._faults(error, raw, first)) from None

    def _named(self, parts: Sequence[msgspec.Raw]) -> bytes:
        """Return an array as an object, as far as its parts have names."""
        pairs = zip(self.names, parts, strict=False)
        return b"{" + b",".join(_encode(name) + b":" + bytes(part) for name, part in pairs) + b"}"

    def _without_names(self, raw: bytes) -> tuple[bytes, bytes]:
        """Take what Python accepts by position only out of an object."""
        given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        listed = []
        for place, name in enumerate(self._unnamed):
            if name not in given:
                if left := given.keys() & set(self._unnamed[place:]):
                    why = f"has no name of its own, so it cannot be given without {name}"
                    raise InvalidArguments.of(Fault(f"/args/{other}", why) for other in sorted(left))
                break
            listed.append(given.pop(name))
        return _encode(listed), _encode(given)

    def _check_list(self, parts: Sequence[msgspec.Raw]) -> None:
        """Check an array as the worker will pass it: in the order of the parameters, what is left to `*args`."""
        count = len(parts)
        needed = sum(
            parameter.default is parameter.empty for parameter in self._parameters if parameter.name in self.names
        )
        if count < needed:
            missing = self.names[count:needed]
            raise InvalidArguments.of(
                Fault(f"/args/{count + i}", f"is missing: {name}") for i, name in enumerate(missing)
            )
        if count > len(self.names) and not self.open_list:
            raise InvalidArguments.of([Fault(f"/args/{len(self.names)}", "is one too many")])
        self._check(self.model.__pydantic_validator__, self._named(parts))
        if self.open_list:
            rest = b"[" + b",".join(map(bytes, parts[len(self.names) :])) + b"]"
            self._check(self._rest, rest, len(self.names))

    def _faults(self, error: ValidationError, raw: bytes, first: int) -> Iterator[Fault]:
        """Tell of faults; `first` is the place of the first part of a list."""
        secret = self.redaction.suspects(raw)
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            place = [part + first if isinstance(part, int) else part for part in fault["loc"][:1]]
            path = "/args" + "".join(f"/{part}" for part in (*place, *fault["loc"][1:]))
            if fault["type"] == "missing":
                yield Fault(path, "is missing")
            elif fault["type"] == "extra_forbidden":
                takes = ", ".join(self.names) or "no arguments"
                yield Fault(path, f"is not an argument of {self.name}, which takes {takes}")
            elif fault["type"] == "json_invalid":
                yield Fault(path, unkept(fault["msg"]))
            elif secret and fault["type"] in _OWN_MESSAGES:
                yield Fault(path, "is not valid; why is not told, since it might tell a secret")
            else:
                message = str(fault["msg"])
                yield Fault(path, message[:1].lower() + message[1:])

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The names of parameters and fields, at any depth, that are pydantic's SecretStr or SecretBytes."""
        if all(parameter.annotation in _SIMPLE for parameter in self._parameters):  # which spares a producer the model
            return frozenset()
        found: set[str] = set()
        for properties in _properties(self._schema):
            found |= {name for name, field in properties.items() if _is_secret(field)}
        return frozenset(found)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The arguments as a JSON schema, without the defaults of secrets."""
        for properties in _properties(self._schema):
            for name, field in properties.items():
                if self.redaction.hides(name):
                    field.pop("default", None)
                    field.pop("examples", None)
        return self._schema

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return self.model.model_json_schema(schema_generator=Schemas)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self._run, include_extras=True)
        except Exception:
            return {}

    @cached_property
    def _rest(self) -> Any:
        """What checks the list of what goes to `*args`."""
        [name] = [parameter.name for parameter in self._parameters if parameter.kind is parameter.VAR_POSITIONAL]
        listed: Any = list
        try:
            return TypeAdapter(listed[self._hints.get(name, Any)])
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
            return TypeAdapter(list[Any])

    @cached_property
    def model(self) -> type[BaseModel]:
        """The arguments as a pydantic model; what pydantic cannot describe is taken as it is."""
        try:
            made = self._build(self._hints)
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
            return self._build({})
        return made if made.__pydantic_complete__ else self._build({})

    def _build(self, hints: dict[str, Any]) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        texts = descriptions(inspect.getdoc(self._run) or "")
        for place, parameter in enumerate(self._parameters):
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            told = Field(default, alias=parameter.name, description=texts.get(parameter.name))
            fields[f"a{place}"] = (hints.get(parameter.name, Any), told)
        extra: Any = "allow" if self._open_object else "forbid"
        return create_model(self.name, __config__=ConfigDict(extra=extra), **fields)


def unkept(error: object) -> str:
    """Say in a sentence why JSON cannot be kept, of which a parser complains in words of its own."""
    told = str(error)
    if isinstance(error, RecursionError) or "recursion" in told:
        return "is nested too deeply"
    if "out of range" in told or "digits" in told:
        return "holds a number that is too large"
    return f"cannot be kept: {told}"


def signature_of(task: Any) -> Signature:
    """Return the signature of a registered task, made once."""
    known = vars(type(task)).get("celeriac_signature")
    if known is None:
        known = type(task).celeriac_signature = Signature(task.name, task.run)
    signature: Signature = known
    return signature


def redaction_of(task: Any, patterns: Iterable[str]) -> Redaction:
    """Return what hides the secrets of a task: the patterns of the settings, what it names itself, its SecretStr."""
    if task is None:
        return _redaction(tuple(patterns))
    return _redaction((*patterns, *(getattr(task, "redact", None) or ()), *signature_of(task).secrets))


@lru_cache(1024)
def _redaction(patterns: tuple[str, ...]) -> Redaction:
    return Redaction(patterns)


def descriptions(text: str) -> dict[str, str]:
    """Return what a docstring says of each parameter, in Google's or Sphinx's way."""
    _, _, section = text.partition("Args:\n")
    lines = section.partition("\n\n")[0].splitlines()
    lines += [line for line in text.splitlines() if line.lstrip().startswith(":param")]
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if told := _TEXT.match(line):
            name = told[1]
            found[name] = told[2].strip()
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _properties(schema: Any) -> Iterator[dict[str, Any]]:
    """Go through the `properties` of a schema at every depth."""
    if isinstance(schema, dict):
        held = schema.get("properties")
        if isinstance(held, dict):
            yield held
        for part in schema.values():
            yield from _properties(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _properties(part)


def _is_secret(field: Any) -> bool:
    """Say whether a schema is that of a secret, or of a list or a choice with one."""
    if isinstance(field, dict):
        return field.get("format") == "password" or any(
            _is_secret(field.get(part)) for part in ("items", "anyOf", "additionalProperties", "prefixItems")
        )
    return isinstance(field, list) and any(map(_is_secret, field))
