"""The values a list of jobs takes after its question mark, checked and made a Filter.

Several values of one kind are separated by commas. What is unknown or wrong is told at once,
all of it. FastAPI documents the same model in the OpenAPI document.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from celeriac.jobs import Filter
from celeriac.states import State
from celeriac.web.api.moments import moment

LIMIT = 50
LIMIT_MAX = 500
NUMBER_MAX = 2**53


def _split(value: Any) -> Any:
    """Take `a,b` and repeated names alike."""
    given = value if isinstance(value, list) else [value]
    return [part for text in given for part in str(text).split(",") if part]


def _state(value: Any) -> str:
    if value not in list(State):
        raise ValueError(f"{str(value)[:40]!r} is not a state; the states are {', '.join(State)}")
    return str(value)


def _text(value: Any) -> str:
    if "\0" in str(value):
        raise ValueError("must not hold NUL")
    return str(value)


def _time(value: Any) -> int:
    return moment(str(value).replace(" ", "+"))  # a plus that nobody encoded


Text = Annotated[str, Field(max_length=255), BeforeValidator(_text)]
Texts = Annotated[list[Text], Field(max_length=100), BeforeValidator(_split)]
StateName = Annotated[str, PlainValidator(_state), WithJsonSchema({"type": "string", "enum": list(State)})]
Time = Annotated[int, PlainValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]


class JobsQuery(BaseModel):
    """Which jobs to list. Empty values do not narrow the list."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[StateName], BeforeValidator(_split)] = Field([], description="States, separated by commas.")
    task: Texts = Field([], description="Names of tasks, separated by commas.")
    queue: Texts = Field([], description="Names of queues, separated by commas.")
    owner: Texts = Field([], description="Owners, separated by commas.")
    tag: Texts = Field([], description="Tags, separated by commas: jobs that carry one of them.")
    q: Text | None = Field(None, description="Beginning of an id, a task, a tag or a type of error.")
    since: Time | None = Field(None, description="Jobs accepted at this time or later.")
    until: Time | None = Field(None, description="Jobs accepted before this time.")
    after: str | None = Field(None, description="`after` of the page before.")
    limit: int = Field(LIMIT, ge=1, le=LIMIT_MAX, description="How many jobs at most.")

    def filter(self) -> Filter:
        """Return the values as the ledger takes them."""
        return Filter(
            states=tuple(self.state), tasks=tuple(self.task), queues=tuple(self.queue), owners=tuple(self.owner),
            tags=tuple(self.tag), q=self.q or None, since=self.since, until=self.until,
        )  # fmt: skip


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
