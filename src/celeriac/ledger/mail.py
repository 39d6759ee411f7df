"""Celery's own small talk when the ledger is the queue: remote control, replies, task events.

Messages of no lasting worth, kept only for queues that somebody bound; unread ones are
pruned. Used by `transport/` alone.
"""

from collections.abc import Sequence

from celeriac import clock
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Ledger, Transaction

_BIND = Sql(
    "INSERT INTO mail_bindings (exchange, routing_key, pattern, queue)"
    " VALUES (:exchange, :routing_key, :pattern, :queue) ON CONFLICT DO NOTHING"
)
_BINDINGS = Sql("SELECT routing_key, pattern, queue FROM mail_bindings WHERE exchange = :exchange")
_PUT = Sql("INSERT INTO mail (queue, at, message) VALUES (:queue, :now, :message)")
_TAKE = Sql(
    "DELETE FROM mail WHERE position {once} SELECT position FROM mail WHERE queue IN ({each})"
    " ORDER BY position LIMIT :most {skip_locked}{end} RETURNING position, queue, message"
)
_WAITING = Sql("SELECT 1 FROM mail WHERE queue IN ({each}) LIMIT 1")
_DROP = [Sql("DELETE FROM mail WHERE queue = :queue"), Sql("DELETE FROM mail_bindings WHERE queue = :queue")]


def bind(ledger: Ledger, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
    """Let messages of an exchange reach a queue."""
    with ledger.transaction() as tx:
        tx.run(_BIND, exchange=exchange, routing_key=routing_key, pattern=pattern, queue=queue)


def bindings(ledger: Ledger, exchange: str) -> list[tuple[str, str, str]]:
    """Return (routing key, pattern, queue) of what is bound to an exchange."""
    with ledger.reading() as connection:
        rows = connection.execute(_BINDINGS.on(ledger.dialect), {"exchange": exchange})
        return [(row.routing_key, row.pattern, row.queue) for row in rows]


def put(tx: Transaction, letters: Sequence[tuple[Sequence[str], str]]) -> list[Exception | None]:
    """Leave messages for queues: each item is the queues and the message (JSON)."""
    for names, message in letters:
        for name in names:
            tx.run(_PUT, queue=name, message=message, now=clock.micros())
            tx.wake(name)
    return [None] * len(letters)


def take(ledger: Ledger, queues: Sequence[str], most: int = 100) -> list[tuple[str, str]]:
    """Take the oldest messages out of these queues: (queue, message) in order; [] without writing if none."""
    names = as_json(list(queues))
    with ledger.reading() as connection:
        if connection.execute(_WAITING.on(ledger.dialect), {"each": names}).first() is None:
            return []
    with ledger.transaction() as tx:
        rows = sorted(tx.run(_TAKE, each=names, most=most).all())
    return [(row.queue, row.message) for row in rows]


def drop(ledger: Ledger, queue: str) -> None:
    """Forget a queue: its bindings and what is unread in it."""
    with ledger.transaction() as tx:
        for statement in _DROP:
            tx.run(statement, queue=queue)
