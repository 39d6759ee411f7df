"""What nothing refers to any more: keys, chords, batches, operations, mail, workers and their kin.

Each table is walked a stretch at a time, by reading; what is found stale is deleted in a short
transaction that judges again. Called by the keeper's pruner when no job is left to delete.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Ledger, Transaction

STRETCH = 1_000
MINUTES = 10 * 60_000_000


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk along the index of a column of a table."""

    find: Sql
    delete: Sql
    start: int | str
    also: Sql | None = None


def _walk(table: str, columns: str, along: str, stale: str, *, until: str = "", also: Sql | None = None) -> Walk:
    names = columns.split(", ")
    these = f"({columns}) IN (SELECT {', '.join(f'v.{name}' for name in names)} FROM {{rows}})"
    return Walk(
        Sql(
            f"SELECT {columns}, {along} AS mark, CASE WHEN {stale} THEN 1 ELSE 0 END AS stale FROM {table}"
            f" WHERE {along} > :mark{until and f' AND {along} < {until}'} ORDER BY {along} LIMIT :most"
        ),
        Sql(f"DELETE FROM {table} WHERE {these} AND {stale}", **dict.fromkeys(names, "text")),
        "" if along == "id" else 0,
        also,
    )


# A unique key and an Idempotency-Key live as long as their job. A chord that never fired goes when its members are old.
WALKS = (
    _walk("idempotency", "owner, key", "created_at",
          "(created_at < :before AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = idempotency.job))",
          until=":before"),
    _walk("unique_keys", "owner, task, key", "until",
          "(until < :before AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = unique_keys.job))",
          until=":before"),
    _walk("chords", "id", "id",
          "(COALESCE(fired_at, created_at) < :before AND (fired_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM jobs"
          " WHERE jobs.group_id = chords.id AND (finished_at IS NULL OR finished_at >= :before))))",
          also=Sql("DELETE FROM chord_parts WHERE chord IN (SELECT v.id FROM {rows})"
              " AND NOT EXISTS (SELECT 1 FROM chords WHERE chords.id = chord_parts.chord)", id="text")),
    _walk("batches", "id", "id",
          "(created_at < :before AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.batch = batches.id))"),
    _walk("operations", "id", "id", "(finished_at < :before)"),
    _walk("workers", "id", "id", "(COALESCE(stopped_at, lost_at) < :before)"),
)  # fmt: skip

# These are in the order of their age, or few.
_HEADS = (
    Sql("DELETE FROM endings WHERE minute < :before AND minute < (SELECT MIN(minute) FROM endings) + :span"),
    Sql("DELETE FROM dead_letters WHERE at < :before AND position IN"
        " (SELECT position FROM dead_letters ORDER BY position LIMIT :most)"),
    Sql("DELETE FROM tickets WHERE digest IN (SELECT digest FROM tickets WHERE expires_at < :now LIMIT :most)"),
    Sql("DELETE FROM sessions WHERE digest IN (SELECT digest FROM sessions WHERE expires_at < :now LIMIT :most)"),
)  # fmt: skip
_MAIL = Sql(
    "DELETE FROM mail WHERE at < :unread AND position IN (SELECT position FROM mail ORDER BY position LIMIT :most)"
    " RETURNING queue"
)
_UNBIND = Sql("DELETE FROM mail_bindings WHERE queue IN ({each})")


def stale(ledger: Ledger, walk: Walk, mark: int | str, before: int, now: int) -> tuple[list[Any], int | str]:
    """Look at the next stretch of a walk; return the rows that are stale, and where to go on (the start at the end)."""
    with ledger.reading() as connection:
        values = {"mark": mark, "most": STRETCH, "before": before, "now": now}
        rows = connection.execute(walk.find.on(ledger.dialect), values).all()
    return [row for row in rows if row.stale], rows[-1].mark if len(rows) == STRETCH else walk.start


def drop(tx: Transaction, walk: Walk, rows: Sequence[Any], before: int, now: int) -> None:
    """Delete those of these rows that are still stale."""
    found = [{name: value for name, value in row._mapping.items() if name not in ("mark", "stale")} for row in rows]
    values = {"before": before, "now": now}
    tx.run(walk.delete, rows=found, **values)
    if walk.also is not None:
        tx.run(walk.also, rows=found)


def drop_heads(tx: Transaction, before: int, unread: int, now: int, most: int) -> int:
    """Delete the oldest of what is in the order of its age; return how many rows.

    Who has left mail unread for so long listens no more: its bindings go as well.
    """
    values = {"before": before, "now": now, "most": most, "span": MINUTES}
    count = sum(tx.run(statement, **values).rowcount for statement in _HEADS)
    queues = [row.queue for row in tx.run(_MAIL, unread=unread, most=most)]
    if queues:
        tx.run(_UNBIND, each=sorted(set(queues)))
    return count + len(queues)
