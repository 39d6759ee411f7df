"""The values that lists and operations take, checked; those that say which jobs become a Filter.

Several values of one kind are separated by commas. What is unknown or wrong is told at once,
all of it. FastAPI documents the same models in the OpenAPI document.
"""

import re
from collections import Counter
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    field_validator,
)
from starlette.requests import Request

from celeriac.errors import Fault, InvalidRequest
from celeriac.jobs import Filter
from celeriac.states import State
from celeriac.web.api.moments import moment

LIMIT = 50
LIMIT_MAX = 500
NUMBER_MAX = 2**53
MINUTES_MAX = 1440
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _split(value: Any) -> Any:
    """Take `a,b` and repeated names alike."""
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in given):  # in the filter of an operation, which is JSON
        raise ValueError("must be a text or a list of texts")
    return [part for text in given for part in text.split(",") if part]


def _state(value: Any) -> str:
    if value not in list(State):
        raise ValueError(f"{str(value)[:40]!r} is not a state; the states are {', '.join(State)}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if "\0" in value:
        raise ValueError("must not hold NUL")
    return value


def _time(value: Any) -> int:
    return moment(str(value).replace(" ", "+"))  # a plus that nobody encoded


Text = Annotated[str, Field(max_length=255), BeforeValidator(_text)]
Texts = Annotated[list[Text], Field(max_length=100), BeforeValidator(_split)]
StateName = Annotated[str, PlainValidator(_state), WithJsonSchema({"type": "string", "enum": list(State)})]
Time = Annotated[int, PlainValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]


class JobFilter(BaseModel):
    """Which jobs; empty values do not narrow it. Texts may be a list, or one text separated by commas."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[StateName], BeforeValidator(_split)] = Field([], description="States, separated by commas.")
    task: Texts = Field([], description="Names of tasks, separated by commas.")
    queue: Texts = Field([], description="Names of queues, separated by commas.")
    owner: Texts = Field([], description="Owners, separated by commas.")
    tag: Texts = Field([], description="Tags, separated by commas: jobs that carry one of them.")
    batch: Texts = Field([], description="Ids of batches, separated by commas.")
    q: Text | None = Field(None, description="Beginning of an id, a task, a tag or a type of error; case counts.")
    since: Time | None = Field(None, description="Jobs accepted at this time or later.")
    until: Time | None = Field(None, description="Jobs accepted before this time.")

    def filter(self) -> Filter:
        """Return the values as the ledger takes them."""
        return Filter(
            states=tuple(self.state), tasks=tuple(self.task), queues=tuple(self.queue), owners=tuple(self.owner),
            tags=tuple(self.tag), batches=tuple(self.batch), q=self.q or None, since=self.since, until=self.until,
        )  # fmt: skip


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    after: Text | None = Field(None, description="`after` of the page before.")
    limit: int = Field(LIMIT, ge=1, le=LIMIT_MAX, description="How many at most; a page may hold fewer.")


class OperationsQuery(PageQuery):
    """Which page of the operations; a cursor is the id of one."""

    @field_validator("after")
    @classmethod
    def _is_id(cls, after: str | None) -> str | None:
        if after is not None and not _ID.fullmatch(after):
            raise ValueError(f"{after[:40]!r} is not a cursor that a list gave out")
        return after


class JobsQuery(JobFilter, PageQuery):
    """Which jobs to list."""


class StatsQuery(BaseModel):
    """How far back to look."""

    model_config = ConfigDict(extra="forbid")

    minutes: int = Field(60, ge=1, le=MINUTES_MAX, description="Endings of the last so many minutes.")


class JobQuery(BaseModel):
    """How to look at one job."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(
        0, ge=0, le=60, allow_inf_nan=False,
        description="Seconds to hold the answer until the job ends; or for so long.",
    )  # fmt: skip


class EventsQuery(BaseModel):
    """Which events of a job to list."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=NUMBER_MAX, description="Number of the last event you have.")
    limit: int = Field(LIMIT_MAX, ge=1, le=LIMIT_MAX, description="How many events at most.")


class NoQuery(BaseModel):
    """A route that takes no values."""

    model_config = ConfigDict(extra="forbid")


_SEVERAL = {name for name, field in JobFilter.model_fields.items() if field.default == []}


async def no_repeats(request: Request) -> None:
    """Refuse a value that is given twice where there can be one. Raises InvalidRequest."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    if twice := [name for name, times in given.items() if times > 1 and name not in _SEVERAL]:
        raise InvalidRequest.of(Fault(f"/{name}", "is given twice") for name in twice)
