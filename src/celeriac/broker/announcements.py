"""News: what one commit changed, as the processes of an instance tell each other.

`sockets` carries it within one machine, `notices` through Postgres. Either may lose it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Protocol

import msgspec


class Ear(StrEnum):
    """Who listens, so that each hears only what concerns it."""

    WORKER = "w"  # queues with work, jobs to cancel
    HUB = "h"  # jobs that moved
    KEEPER = "k"  # moments somebody waits for


@dataclass(frozen=True, slots=True)
class News:
    """What one commit changed. `ends` and `steps` map a job's id to the number of its newest event.

    Empty news say: look at everything, something may have been lost.
    """

    queues: list[str] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    due_at: int | None = None

    def __bool__(self) -> bool:
        return bool(self.queues or self.cancels or self.ends or self.steps or self.due_at is not None)


class Listener(Protocol):
    """A process's ear: a descriptor to wait on with any event loop, and what it heard."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is news."""

    def receive(self) -> list[News]:
        """Return all news that has arrived; never waits."""

    def poke(self) -> None:
        """Make this listener readable: the way to wake its own event loop."""

    def close(self) -> None:
        """Stop listening."""


class Announcer(Protocol):
    """Tells every listener of a ledger what concerns it; never waits long and never fails."""

    def announce(self, news: News) -> None:
        """Tell workers of queues and cancels, hubs of jobs that moved, keepers of the next due moment."""

    def close(self) -> None:
        """Tell nobody any more."""


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(News).decode


def by_ear(news: News, items: int) -> Iterator[tuple[Ear, News]]:
    """Divide news by whom they concern, with at most so many jobs in each part."""
    if news.queues or news.cancels:
        yield Ear.WORKER, News(queues=news.queues, cancels=news.cancels)
    for part in _parts(news.ends, items):
        yield Ear.HUB, News(ends=part)
    for part in _parts(news.steps, items):
        yield Ear.HUB, News(steps=part)
    if news.due_at is not None:
        yield Ear.KEEPER, News(due_at=news.due_at)


def together(many: Iterable[News]) -> News:
    """Return several news as one."""
    queues: dict[str, None] = {}
    cancels: dict[str, None] = {}
    ends: dict[str, int] = {}
    steps: dict[str, int] = {}
    due: list[int] = []
    for news in many:
        queues.update(dict.fromkeys(news.queues))
        cancels.update(dict.fromkeys(news.cancels))
        ends.update(news.ends)
        steps.update(news.steps)
        due += [] if news.due_at is None else [news.due_at]
    return News(list(queues), list(cancels), ends, steps, min(due, default=None))


def _parts(items: dict[str, int], size: int) -> Iterator[dict[str, int]]:
    pairs = iter(items.items())
    while part := dict(islice(pairs, size)):
        yield part
