"""Lists of jobs: any filter, newest first, by pages that cost much the same however many jobs there are.

The web API, the console and operations on a filter ask here. A page is read from the ranges of an
index (ranges.py) that hold all it may show; what they hold beyond that is looked at job by job, no
more than STRETCH for one page. So a page may hold fewer jobs than asked for, or none, and still lead on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection

from celeriac.access import Permission, Principal
from celeriac.errors import Fault, InvalidRequest
from celeriac.jobs import Filter, Job
from celeriac.ledger import ranges
from celeriac.ledger.counts import Place, all_counts
from celeriac.ledger.ranges import Source, Window
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Ledger
from celeriac.ledger.summaries import SUMMARY, summary_of
from celeriac.states import State

STRETCH = 1_000  # jobs looked at for one page
TAGS_MOST = 200  # tags in use, beyond which the beginning of one is looked for job by job
DENSE = 0.5  # the share of all jobs from which on ranges save nothing

ILL = (State.FAILED, State.CANCELLED, State.RETRYING)  # where `q` looks at the type of the error
_TYPE = re.compile(r"[^\W\d][\w.]*")  # of an error: the name of a class
_CURSOR = re.compile("k[0-9a-f]{1,15}")
_CONDITIONS = {
    "states": "state IN ({among[states]})",
    "tasks": "task IN ({among[tasks]})",
    "queues": "queue IN ({among[queues]})",
    "owners": "owner IN ({among[owners]})",
    "batches": "batch IN ({among[batches]})",
    "tags": "EXISTS (SELECT 1 FROM tags WHERE tags.job = jobs.key AND tags.tag IN ({among[tags]}))",
    "since": "created_at >= :since",
    "until": "created_at < :until",
    "q": "(substr(id, 1, :length) = :q OR substr(task, 1, :length) = :q"
    " OR (state IN ('failed', 'cancelled', 'retrying') AND substr(error_type, 1, :length) = :q)"
    " OR EXISTS (SELECT 1 FROM tags WHERE tags.job = jobs.key AND substr(tags.tag, 1, :length) = :q))",
}


def page(
    ledger: Ledger, principal: Principal, filter: Filter, after: str | None, limit: int
) -> tuple[list[Job], str | None]:
    """Return a page of jobs, newest first, and the cursor of the next page (None when there is none).

    A page may hold fewer jobs than `limit`, even none; go on while there is a cursor. A job is found
    by `since` and `until` if the clocks of those who submit agree to ten seconds.
    Raises InvalidRequest for a cursor that was not given out here.
    """
    before = None if after is None else _key(after)
    owners = _owners(principal, filter)
    if owners == ():
        return [], None
    found: list[Job] = []
    with ledger.reading(whole=True) as connection:
        window = ranges.ends(connection, filter.since, filter.until, before)
        for jobs, reached in _Asked(filter, owners).stretches(connection, window, limit):
            found += jobs
            if len(found) > limit:
                return found[:limit], _cursor(found[limit - 1].key)
            cursor = None if reached is None else _cursor(reached)
    return found, cursor


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a list asks for; `owners` is None when it shows everybody's jobs."""

    filter: Filter
    owners: tuple[str, ...] | None

    def stretches(self, connection: Connection, window: Window, limit: int) -> Iterator[tuple[list[Job], int | None]]:
        """Yield the jobs of one stretch after another with the key reached, None when there is no more."""
        sources = self.sources(connection, window)
        most, left = (limit + 1 if self.exact else 4 * limit), STRETCH
        source, keys = _farthest(connection, sources, window, most)
        while True:
            ended = len(keys) < most
            yield self.chosen(connection, keys), None if ended else keys[-1]
            left -= most
            if ended or left <= 0:
                return
            window, most = (keys[-1], window[1]), min(4 * most, left)
            keys = source.keys(connection, window, most)

    @property
    def exact(self) -> bool:
        """Whether every job in the ranges is one of the list: nothing is asked for beside state, queue and task."""
        filter = self.filter
        return not (self.owners or filter.tags or filter.batches or filter.q)

    def sources(self, connection: Connection, window: Window) -> list[Source]:
        """Return the sources that hold all jobs of the list; any of them will do."""
        filter, found = self.filter, []
        if filter.batches:
            found.append(Source([ranges.of_batches(filter.batches)]))
        if filter.tags:
            found.append(Source([ranges.of_tags(filter.tags)]))
        if self.owners:
            found.append(Source([ranges.of_owners(self.owners)]))
        if filter.states or filter.queues or filter.tasks or filter.q:
            counts = all_counts(connection)
            places = [place for place in counts if self.takes(place)]
            if filter.q:
                found += self.beginnings(connection, counts, places)
            elif self.exact or _share(counts, places) < DENSE:
                found.append(Source([ranges.of_places(places, _share(counts, places))]))
        return found or [ranges.EVERYTHING]

    def takes(self, place: Place) -> bool:
        """Say whether the list may hold jobs of this combination."""
        asked = (self.filter.states, self.filter.queues, self.filter.tasks)
        return all(not names or name in names for names, name in zip(asked, place, strict=True))

    def beginnings(self, connection: Connection, counts: dict[Place, int], places: list[Place]) -> list[Source]:
        """Return the source of all jobs that begin with `q` in one way or another, if there is a short way to them."""
        q = self.filter.q or ""
        ids, tagged = ranges.with_id(connection, q, STRETCH), ranges.with_tag(connection, q, TAGS_MOST)
        ill = ILL if _TYPE.fullmatch(q) else ()
        likely = [(state, queue, task) for state, queue, task in places if task.startswith(q) or state in ill]
        share = _share(counts, likely)
        if ids is None or tagged is None or share > DENSE:
            return []
        return [Source([ids, tagged, ranges.of_places(likely, share)])]

    def chosen(self, connection: Connection, keys: list[int]) -> list[Job]:
        """Return the jobs among these that are of the list."""
        if not keys:
            return []
        filter, q = self.filter, self.filter.q
        values: dict[str, Any] = {
            "states": filter.states, "tasks": filter.tasks, "queues": filter.queues, "owners": self.owners,
            "batches": filter.batches, "tags": filter.tags, "since": filter.since, "until": filter.until, "q": q,
        }  # fmt: skip
        values = {name: value for name, value in values.items() if value not in (None, ())}
        statement = _statement(tuple(values))
        told = {name: as_json(value) if isinstance(value, tuple) else value for name, value in values.items()}
        if q:
            told["length"] = len(q)
        rows = connection.execute(statement.on(connection.dialect.name), {"each": as_json(keys), **told})
        return [summary_of(row) for row in rows]


def _farthest(connection: Connection, sources: list[Source], window: Window, most: int) -> tuple[Source, list[int]]:
    """Return the source that leads farthest with its first so many jobs, and the keys of these."""
    tried = [(source, source.keys(connection, window, most)) for source in sources]
    return min(tried, key=lambda one: (len(one[1]) == most, one[1][-1] if one[1] else 0))


@cache
def _statement(names: tuple[str, ...]) -> Sql:
    conditions = " AND ".join(["key {once} {each_int} {end}", *(_CONDITIONS[name] for name in names)])
    return Sql(f"SELECT {SUMMARY} FROM jobs WHERE {conditions} ORDER BY key DESC")


def _share(counts: dict[Place, int], places: list[Place]) -> float:
    """Return which share of all jobs is in these combinations."""
    return sum(counts[place] for place in places) / max(sum(counts.values()), 1)


def _owners(principal: Principal, filter: Filter) -> tuple[str, ...] | None:
    """Return whose jobs the list shows: None for everybody's, () for nobody's."""
    if Permission.JOBS_READ_ALL in principal.permissions:
        return filter.owners or None
    return (principal.owner,) if not filter.owners or principal.owner in filter.owners else ()


def _cursor(key: int) -> str:
    return f"k{key:x}"


def _key(cursor: str) -> int:
    if not _CURSOR.fullmatch(cursor):
        raise InvalidRequest.of([Fault("/after", f"{cursor[:40]!r} is not a cursor that a list gave out")])
    return int(cursor[1:], 16)
