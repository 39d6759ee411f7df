"""Operations: a cancel or a retry of every job that matches a filter, worked off in small steps.

`web/api/operations.py` begins one, the keeper's leader (`keeper/operator.py`) takes the steps. It
concerns the jobs that existed when it was asked, newest first, on behalf of who asked. How far it has
come and what it counted commit with the moves, so it goes on exactly where a killed keeper left it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from celeriac import clock
from celeriac.access import Permission, Principal
from celeriac.errors import OperationNotFound
from celeriac.failpoints import failpoint
from celeriac.jobs import Filter, Job, new_id
from celeriac.ledger import pages
from celeriac.ledger.moves.requests import Asked, cancel, reopen
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Ledger, Transaction
from celeriac.states import State, is_final

_BEGIN = Sql(
    "INSERT INTO operations (id, kind, owner, permissions, filter, upto, created_at)"
    " VALUES (:id, :kind, :owner, :permissions, :filter, (SELECT COALESCE(MAX(key), 0) FROM jobs), :now)"
)
_COLUMNS = (
    "SELECT id, kind, owner, permissions, filter, upto, after, matched, moved, refused, created_at, finished_at"
    " FROM operations"
)
_ONE = Sql(f"{_COLUMNS} WHERE id = :id")
_OPEN = Sql(f"{_COLUMNS} {{by[operations_open]}} WHERE finished_at IS NULL ORDER BY created_at LIMIT 20")
_PAGE = Sql(
    f"{_COLUMNS} WHERE (owner = :owner OR :all = 1) AND (CAST(:after AS text) IS NULL OR id < CAST(:after AS text))"
    " ORDER BY id DESC LIMIT :most"
)
_STATES = Sql("SELECT id, state FROM jobs WHERE id IN ({each}) {lock}")
_ADVANCE = Sql(
    "UPDATE operations SET after = :after, finished_at = :finished_at"
    " WHERE id = :id AND COALESCE(after, '') = :before AND finished_at IS NULL"
)
_COUNT = Sql(
    "UPDATE operations SET matched = matched + :matched, moved = moved + :moved, refused = refused + :refused"
    " WHERE id = :id"
)


class Kind(StrEnum):
    """What an operation does to each job."""

    CANCEL = "cancel"
    RETRY = "retry"


_MOVABLE = {
    Kind.CANCEL: tuple(state for state in State if not is_final(state)),
    Kind.RETRY: (State.FAILED, State.CANCELLED),
}
_MOVES = {Kind.CANCEL: cancel, Kind.RETRY: reopen}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for an operation on somebody's behalf."""

    kind: Kind
    principal: Principal
    filter: Filter


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation and how far it has come; `matched` is always `moved` plus `refused`."""

    id: str
    kind: Kind
    principal: Principal
    filter: Filter
    upto: int
    after: str | None
    matched: int
    moved: int
    refused: int
    created_at: int
    finished_at: int | None

    @property
    def states(self) -> tuple[str, ...]:
        """The states it looks for: its filter's, or else those in which a job can be moved."""
        return self.filter.states or _MOVABLE[self.kind]


def begin(tx: Transaction, wanted: Sequence[Wanted]) -> list[Operation | Exception]:
    """Enter operations and wake the keeper."""
    now = clock.micros()
    begun: list[Operation | Exception] = []
    for item in wanted:
        id = new_id()
        tx.run(
            _BEGIN, id=id, kind=item.kind, owner=item.principal.owner, permissions=as_json(item.principal),
            filter=as_json(item.filter), now=now,
        )  # fmt: skip
        begun.append(_operation(tx.run(_ONE, id=id).first()))
    tx.wait_until(now)
    return begun


def operation(ledger: Ledger, principal: Principal, id: str) -> Operation:
    """Return one operation. Raises OperationNotFound."""
    with ledger.reading() as connection:
        row = connection.execute(_ONE.on(ledger.dialect), {"id": id}).first()
    if row is None or not principal.sees(row.owner):
        raise OperationNotFound(id)
    return _operation(row)


def page(ledger: Ledger, principal: Principal, after: str | None, limit: int) -> tuple[list[Operation], str | None]:
    """Return a page of operations, newest first, and the cursor of the next page (None on the last)."""
    everyone = int(Permission.JOBS_READ_ALL in principal.permissions)
    parameters = {"owner": principal.owner, "all": everyone, "after": after, "most": limit + 1}
    with ledger.reading() as connection:
        rows = connection.execute(_PAGE.on(ledger.dialect), parameters).all()
    return [_operation(row) for row in rows[:limit]], rows[limit - 1].id if len(rows) > limit else None


def unfinished(ledger: Ledger) -> list[Operation]:
    """Return the oldest operations that are not done: what the keeper works on."""
    with ledger.reading() as connection:
        return [_operation(row) for row in connection.execute(_OPEN.on(ledger.dialect))]


def look(ledger: Ledger, operation: Operation, most: int) -> tuple[list[Job], str | None]:
    """Return the next jobs of an operation, and the mark behind them (None at the end)."""
    principal = operation.principal
    if Permission.JOBS_CONTROL_ALL not in principal.permissions:  # what it may not move, it does not count either
        principal = replace(principal, permissions=principal.permissions - {Permission.JOBS_READ_ALL})
    filter = replace(operation.filter, states=operation.states)
    newest = f"k{operation.upto + 1:x}"  # a cursor as pages.py gives them out
    return pages.page(ledger, principal, filter, operation.after or newest, most)


def step(tx: Transaction, operation: Operation, jobs: Sequence[Job], after: str | None, skip: bool = False) -> None:
    """Move these jobs and count them, unless this step was done before.

    A job that has left the operation's states since the look is refused, like one that cannot be moved; `skip`
    refuses all.
    """
    finished_at = clock.micros() if after is None else None
    before = operation.after or ""
    if not tx.run(_ADVANCE, id=operation.id, before=before, after=after, finished_at=finished_at).rowcount:
        return
    ids = [job.id for job in jobs]
    still = [row.id for row in tx.run(_STATES, each=ids) if row.state in operation.states] if not skip else []
    answers = _MOVES[operation.kind](tx, [Asked(operation.principal, id) for id in still]) if still else []
    failpoint("operation-moved")
    moved = sum(not isinstance(answer, Exception) for answer in answers)
    tx.run(_COUNT, id=operation.id, matched=len(ids), moved=moved, refused=len(ids) - moved)


def _operation(row: Any) -> Operation:
    return Operation(
        row.id, Kind(row.kind), msgspec.json.decode(row.permissions, type=Principal),
        msgspec.json.decode(row.filter, type=Filter), row.upto, row.after, row.matched, row.moved, row.refused,
        row.created_at, row.finished_at,
    )  # fmt: skip
