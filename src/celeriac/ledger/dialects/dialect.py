"""What `store.py` asks of a database, and what it gets back.

`sqlite.py` and `postgres.py` answer it. Here are also the sentences for what can go wrong with both.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Engine

from celeriac.errors import LedgerFull, LedgerUnavailable


class Rows:
    """What a statement answered, read to its end: rows with named columns."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        """Return all rows."""
        return self._rows

    def first(self) -> Any:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None

    def followed_by(self, others: "Iterable[Rows]") -> "Rows":
        """Return these rows with those of others behind them."""
        for other in others:
            self._rows += other._rows
            self.rowcount += other.rowcount
        return self


class Dialect(Protocol):
    """One database, as this process uses it."""

    @property
    def name(self) -> str:
        """SQLAlchemy's name for it."""

    @property
    def writer(self) -> Engine:
        """What transactions are made with."""

    @property
    def reader(self) -> Engine:
        """What is read with: sees what was committed, waits for nobody."""

    @property
    def snapshot(self) -> Engine:
        """As `reader`; all statements of a connection see the same moment."""

    @property
    def shared(self) -> bool:
        """Whether several threads and processes may write at once."""

    @property
    def turn(self) -> AbstractContextManager[object, bool | None]:
        """Taken around each write transaction, where only one may be."""

    def alone(self) -> AbstractContextManager[object, bool | None]:
        """Keep the other threads of this process from writing, where they share a connection."""

    @property
    def holds_turn(self) -> bool:
        """Whether this very thread is in a write transaction that others wait for."""

    def run(self, driver: Any, text: str, parameters: Any) -> Rows:
        """Execute a statement on a connection of the driver; the shortest way there is."""

    def later(self, driver: Any, text: str, parameters: Any) -> None:
        """Execute a statement of which nobody reads the answer: in its order, and with the next one at the latest."""

    def flush(self, driver: Any) -> None:
        """Execute what was put off."""

    def load(self, driver: Any, table: str, rows: Sequence[dict[str, Any]], key: str) -> list[int] | None:
        """Add many rows of the same columns faster than by INSERT, and return their keys (in `key`, if it is named).

        None if that cannot be: there is no such way on this connection, or one of the rows exists already.
        """

    def begin(self, driver: Any) -> None:
        """Prepare a transaction of ours that has just begun."""

    def in_transaction(self, driver: Any) -> bool:
        """Say whether what a caller's connection does now is, or begins, a transaction."""

    def is_broken(self, driver: Any, error: BaseException) -> bool:
        """Say whether a connection of the driver, on which this happened, is of no use any more."""

    def driver_of(self, connection: Any) -> Any:
        """Return the driver's connection within a caller's. Raises TypeError when it is of another database."""

    def meaning(self, error: Exception) -> Exception:
        """Return what a driver's error means to a caller; faults in the data or in us stay as they are."""


def full() -> LedgerFull:
    """Return the error of a full disk."""
    return LedgerFull("The disk under the ledger is full. Free some space; nothing was accepted.")


def unavailable(why: object) -> LedgerUnavailable:
    """Return the error of a database that cannot be used now."""
    told = " ".join(str(why).split())[:500].rstrip(" .,:;?!")
    return LedgerUnavailable(f"The ledger cannot be used now: {told}. Nothing was accepted.")


def driver_within(connection: Any, kind: type[Any]) -> Any:
    """Return the connection of this kind that a caller's connection is or holds. Raises TypeError."""
    held = connection
    for _ in range(4):
        if isinstance(held, kind):
            return held
        if hasattr(held, "ensure_connection"):  # Django opens its connection on first use
            held.ensure_connection()
        held = getattr(held, "driver_connection", None) or getattr(held, "connection", None)
    name = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TypeError(
        f"A {name} is not a connection to the ledger's database: that is a {kind.__module__}.{kind.__name__}."
    )
