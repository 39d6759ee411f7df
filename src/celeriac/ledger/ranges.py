"""Where the jobs of a list are found: stretches of an index, from the newest down.

A Source gives the keys of all jobs that a list may hold, in order, from as many ranges of an index
as it takes: one for each combination of state, queue and task that has jobs, for each owner, tag or
batch. `pages.py` chooses the source that leads farthest and looks at the jobs themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection

from celeriac.ledger.counts import Place
from celeriac.ledger.sql import Sql, as_json

SKEW = 10_000_000  # how far the clocks of those who submit may be apart, in microseconds

# (key of the newest job not to look at, key of the oldest not to look at): what lies between is looked at.
Window = tuple[int, int]


def _ranges(index: str, where: str, order: str = "key", column: str = "key", **columns: str) -> Sql:
    return Sql(
        f"SELECT k.value FROM {{rows}} CROSS JOIN {{for_each}} SELECT {column} AS value FROM {index}"
        f" WHERE {where} AND {column} < :before AND {column} > :floor ORDER BY {order} DESC LIMIT :most"
        " {end_each} AS k ORDER BY 1 DESC LIMIT :most",
        **columns,
    )


_BY_PLACE = _ranges(
    "jobs {by[jobs_kind]}", "state = v.state AND queue = v.queue AND task = v.task",
    state="text", queue="text", task="text",
)  # fmt: skip
_BY_OWNER = _ranges("jobs {by[jobs_owner]}", "owner = v.owner", owner="text")
# Sorted by a sum: Postgres would otherwise walk down all jobs to be spared the sort of a few.
_BY_BATCH = _ranges("jobs {by[jobs_batch]}", "batch = v.batch", order="key + 0", batch="text")
_BY_TAG = _ranges("tags", "tag = v.tag", order="job", column="job", tag="text")
_ALL = Sql("SELECT key FROM jobs WHERE key < :before AND key > :floor ORDER BY key DESC LIMIT :most")

_ENDS = Sql("SELECT (SELECT MAX(key) FROM jobs) + 1 AS before, (SELECT MIN(key) FROM jobs) - 1 AS floor")
_MIDDLE = "(SELECT created_at FROM jobs WHERE key > (low + high) / 2 ORDER BY key LIMIT 1) < :at"
# Keys rise with the time of acceptance, so halving finds the last job before a moment, to within a few.
_BISECT = Sql(
    "WITH RECURSIVE halves(low, high) AS (SELECT CAST(:low AS bigint), CAST(:high AS bigint) UNION ALL"
    f" SELECT CASE WHEN {_MIDDLE} THEN (low + high) / 2 ELSE low END,"
    f" CASE WHEN {_MIDDLE} THEN high ELSE (low + high) / 2 END"
    " FROM halves WHERE high - low > 64) SELECT MAX(low) AS low, MIN(high) AS high FROM halves"
)
_IDS = Sql("SELECT key FROM jobs WHERE id >= :prefix AND id < :beyond LIMIT :most")
_TAGS = Sql(
    "WITH RECURSIVE found(tag, number) AS (SELECT (SELECT MIN(tag) FROM tags), 1 UNION ALL"
    " SELECT (SELECT MIN(tag) FROM tags WHERE tags.tag > found.tag), number + 1 FROM found"
    # As one text, which is the same before and after a migration gives tags another order.
    " WHERE tag IS NOT NULL AND number <= :most) SELECT CAST({json_list}(tag) AS text) FROM found WHERE tag IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of one index: one for each row. `spread` is how many keys there are for each that is in a range."""

    statement: Sql
    rows: Sequence[dict[str, str]]
    spread: float | None = None

    def keys(self, connection: Connection, window: Window, most: int) -> list[int]:
        """Return the newest keys within a window, at most so many."""
        before, floor = window
        found: list[int] = []
        span = None if self.spread is None else int(2 * most * self.spread)
        while before > floor + 1 and len(found) < most:
            low = floor if span is None else max(floor, before - span)
            found += self._within(connection, (before, low), most - len(found))
            before, span = low + 1, span and span * 4
        return found

    def _within(self, connection: Connection, window: Window, most: int) -> list[int]:
        before, floor = window
        values = {"before": before, "floor": floor, "most": most, "rows": as_json(self.rows)}
        return [key for (key,) in connection.execute(self.statement.on(connection.dialect.name), values)]


@dataclass(frozen=True, slots=True)
class Known:
    """A few jobs that were found already."""

    found: Sequence[int]

    def keys(self, connection: Connection, window: Window, most: int) -> list[int]:
        """Return those within a window."""
        before, floor = window
        return [key for key in self.found if floor < key < before]


@dataclass(frozen=True, slots=True)
class Source:
    """Parts that together hold all jobs which a list may hold."""

    parts: Sequence[Ranges | Known]

    def keys(self, connection: Connection, window: Window, most: int) -> list[int]:
        """Return the newest keys of all parts, at most so many; fewer when there are no more."""
        if len(self.parts) == 1:
            return self.parts[0].keys(connection, window, most)
        found = {key for part in self.parts for key in part.keys(connection, window, most)}
        return sorted(found, reverse=True)[:most]


EVERYTHING = Source([Ranges(_ALL, ())])


def of_places(places: Iterable[Place], share: float) -> Ranges | Known:
    """Return the ranges of combinations of state, queue and task, which hold this share of all jobs."""
    rows = [{"state": state, "queue": queue, "task": task} for state, queue, task in places]
    return Ranges(_BY_PLACE, rows, 1 / share) if share else Known(())


def of_owners(owners: Iterable[str]) -> Ranges:
    """Return the ranges of owners."""
    return Ranges(_BY_OWNER, [{"owner": owner} for owner in set(owners)])


def of_tags(tags: Iterable[str]) -> Ranges:
    """Return the ranges of tags."""
    return Ranges(_BY_TAG, [{"tag": tag} for tag in set(tags)])


def of_batches(batches: Iterable[str]) -> Ranges:
    """Return the ranges of batches."""
    return Ranges(_BY_BATCH, [{"batch": batch} for batch in set(batches)])


def ends(connection: Connection, since: int | None, until: int | None, before: int | None) -> Window:
    """Return a window that holds every job accepted between two moments and older than a key."""
    dialect = connection.dialect.name
    high, low = connection.execute(_ENDS.on(dialect)).one()
    if high is None:
        return 0, 0
    window = {"low": low, "high": high}
    if since is not None:
        low = connection.execute(_BISECT.on(dialect), {**window, "at": since - SKEW}).one().low
    if until is not None:
        high = connection.execute(_BISECT.on(dialect), {**window, "at": until + SKEW}).one().high + 1
    return high if before is None else min(high, before), low


def with_id(connection: Connection, prefix: str, most: int) -> Known | None:
    """Return the jobs whose id begins so, or None when they are more than `most`."""
    values = {"prefix": prefix, "beyond": _beyond(prefix), "most": most + 1}
    found = [key for (key,) in connection.execute(_IDS.on(connection.dialect.name), values)]
    return Known(found) if len(found) <= most else None


def with_tag(connection: Connection, prefix: str, most: int) -> Ranges | Known | None:
    """Return the ranges of the tags that begin so, or None when there are too many tags to tell."""
    known = msgspec.json.decode(connection.execute(_TAGS.on(connection.dialect.name), {"most": most}).scalar() or "[]")
    if len(known) > most:
        return None
    tags = [tag for tag in known if tag.startswith(prefix)]
    return of_tags(tags) if tags else Known(())


def _beyond(prefix: str) -> str:
    """Return the first text, by its bytes, after all that begin with this prefix."""
    last = ord(prefix[-1])
    if last == 0x10FFFF:
        return _beyond(prefix[:-1]) if len(prefix) > 1 else prefix * 64
    return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
