"""Who is alive: worker nodes with their counters, and the leading keeper with its term.

No clock is compared between machines. A worker or a leader raises a counter; an observer
that reads the same counter for long enough of its own monotonic time may act on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from celeriac import clock
from celeriac.jobs import Worker
from celeriac.ledger.sql import Insert, Sql, as_json
from celeriac.ledger.store import Ledger, Transaction

_REGISTER = Sql(
    "INSERT INTO workers (id, name, host, pid, queues, tasks, concurrency, pool, version, beats, beat_at, started_at)"
    " VALUES (:id, :name, :host, :pid, :queues, :tasks, :concurrency, :pool, :version, 1, :now, :now)"
)
_BEAT = Sql(
    "UPDATE workers SET beats = beats + 1, beat_at = :now"
    " WHERE id = :id AND lost_at IS NULL AND stopped_at IS NULL RETURNING id"
)
_REVISE = Sql("UPDATE workers SET queues = :queues, concurrency = :concurrency WHERE id = :id")
_STOP = Sql("UPDATE workers SET stopped_at = :now WHERE id = :id AND stopped_at IS NULL")
_JUDGE = Insert("stuck_workers", "ON CONFLICT (worker) DO UPDATE SET at = excluded.at", worker="text", at="int")
_ACQUIT = Sql("DELETE FROM stuck_workers WHERE worker IN ({each})")
_CLAIMABLE = Sql(  # as the claim says it
    "SELECT 1 FROM jobs {by[jobs_kind]} WHERE state = 'queued' AND task IN ({among[tasks]}) AND queue IN"
    " ({among[queues]} EXCEPT SELECT name FROM queues WHERE paused_at IS NOT NULL)"
    " AND observed = 0 AND (expires_at IS NULL OR expires_at > :now) LIMIT 1"
)
_LOSE = Sql(
    "UPDATE workers SET lost_at = :now WHERE id IN ({each}) AND lost_at IS NULL AND stopped_at IS NULL RETURNING name"
)
_LEADER = Sql("SELECT holder, term, beats, released FROM leaders WHERE name = :name {lock_row}")
_FIRST_TERM = Sql(
    "INSERT INTO leaders (name, holder, term, beats) VALUES (:name, :holder, 1, 1) ON CONFLICT DO NOTHING"
)
_RENEW = Sql(
    "UPDATE leaders SET beats = beats + 1 WHERE name = :name AND holder = :holder AND term = :term AND released = 0"
)
_TAKE = Sql(
    "UPDATE leaders SET holder = :holder, term = term + 1, beats = 1, released = 0 WHERE name = :name AND term = :term"
)
_RELEASE = Sql("UPDATE leaders SET released = 1 WHERE name = :name AND holder = :holder AND term = :term")


def register(tx: Transaction, workers: Sequence[Worker]) -> list[Exception | None]:
    """Enter worker nodes; each incarnation of a node has an id of its own."""
    for worker in workers:
        tx.run(
            _REGISTER, id=worker.id, name=worker.name, host=worker.host, pid=worker.pid, queues=as_json(worker.queues),
            tasks=as_json(worker.tasks), concurrency=worker.concurrency, pool=worker.pool, version=worker.version,
            now=clock.micros(),
        )  # fmt: skip
    return [None] * len(workers)


@dataclass(frozen=True, slots=True)
class Shape:
    """What may change of a worker node while it runs."""

    id: str
    queues: tuple[str, ...]
    concurrency: int


def revise(tx: Transaction, shapes: Sequence[Shape]) -> list[Exception | None]:
    """Note that worker nodes consume other queues or run another number of jobs at a time than before."""
    for shape in shapes:
        tx.run(_REVISE, id=shape.id, queues=as_json(shape.queues), concurrency=shape.concurrency)
    return [None] * len(shapes)


def beat(tx: Transaction, workers: Sequence[str]) -> list[bool | Exception]:
    """Raise workers' counters. Answers False for a worker that was given up as dead: it must register anew."""
    return [tx.run(_BEAT, id=worker, now=clock.micros()).first() is not None for worker in workers]


def stop(tx: Transaction, workers: Sequence[str]) -> list[Exception | None]:
    """Note that workers ended by themselves, with nothing left in their hands."""
    for worker in workers:
        tx.run(_STOP, id=worker, now=clock.micros())
    tx.run(_ACQUIT, each=list(workers))
    return [None] * len(workers)


def judge(tx: Transaction, judgements: Sequence[tuple[str, int | None]]) -> list[Exception | None]:
    """Note since when workers have claimed nothing though they could, or None for those that claim again."""
    tx.run(_ACQUIT, each=sorted(worker for worker, _ in judgements))
    stuck = [{"worker": worker, "at": at} for worker, at in sorted(judgements) if at is not None]
    if stuck:
        tx.run(_JUDGE, rows=stuck)
    return [None] * len(judgements)


def any_claimable(ledger: Ledger, queues: Iterable[str], tasks: Iterable[str]) -> bool:
    """Say whether a job waits that a worker of these queues and tasks may claim now."""
    values = {"queues": as_json(sorted(queues)), "tasks": as_json(sorted(tasks)), "now": clock.micros()}
    with ledger.reading() as connection:
        return connection.execute(_CLAIMABLE.on(ledger.dialect), values).first() is not None


def lose(tx: Transaction, workers: Sequence[str]) -> list[str]:
    """Declare workers dead; return the names of those that were not yet. Their jobs are the rescuer's."""
    tx.run(_ACQUIT, each=list(workers))
    return [row.name for row in tx.run(_LOSE, each=list(workers), now=clock.micros())]


def beats(connection: Connection) -> dict[str, int]:
    """Return the counters of all workers that are neither stopped nor lost."""
    rows = connection.execute(text("SELECT id, beats FROM workers WHERE stopped_at IS NULL AND lost_at IS NULL"))
    return {row.id: row.beats for row in rows}


@dataclass(frozen=True, slots=True)
class Lead:
    """Who leads: a term is never used twice, so it fences a leader that slept through its end."""

    holder: str
    term: int
    beats: int
    released: bool


def leader(ledger: Ledger, name: str) -> Lead | None:
    """Return who leads `name`, or None when nobody ever did."""
    with ledger.reading() as connection:
        query = text("SELECT holder, term, beats, released FROM leaders WHERE name = :name")
        row = connection.execute(query, {"name": name}).first()
    return None if row is None else Lead(row.holder, row.term, row.beats, bool(row.released))


def campaign(tx: Transaction, name: str, holder: str, dead: Lead | None) -> int | None:
    """Try to lead; return the new term, or None when somebody else does.

    `dead` is the leader as the caller has seen it unchanged for the whole lease; one that has
    changed since, or has not released its lead, stays.
    """
    row = tx.run(_LEADER, name=name).first()
    if row is None:
        return 1 if tx.run(_FIRST_TERM, name=name, holder=holder).rowcount else None
    seen = Lead(row.holder, row.term, row.beats, bool(row.released))
    if not seen.released and seen != dead:
        return None
    tx.run(_TAKE, name=name, holder=holder, term=seen.term)
    return seen.term + 1


def renew(tx: Transaction, name: str, holder: str, term: int) -> bool:
    """Raise the leader's counter in the transaction of its duty; False when another term has begun."""
    return tx.run(_RENEW, name=name, holder=holder, term=term).rowcount == 1


def release(tx: Transaction, name: str, holder: str, term: int) -> None:
    """Give up the lead, so that the next keeper need not wait for the lease."""
    tx.run(_RELEASE, name=name, holder=holder, term=term)
