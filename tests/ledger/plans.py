"""How SQLite would run what the ledger asks: statements are caught on their way and explained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from celeriac.ledger import Ledger, Transaction


@contextmanager
def caught() -> Iterator[list[tuple[str, Any]]]:
    """Catch every statement, with its parameters, that any ledger executes meanwhile."""
    statements: list[tuple[str, Any]] = []

    def catch(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split(" ", 1)[0] in ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"):
            statements.append((statement, parameters))

    run = Transaction.run

    def caught_run(self: Transaction, statement: Any, /, **parameters: Any) -> Any:
        text, values = statement.bound(self.dialect, dict(parameters))
        catch(None, None, text.strip(), tuple(values) if isinstance(values, list) else values)
        return run(self, statement, **parameters)

    event.listen(Engine, "before_cursor_execute", catch)
    Transaction.run = caught_run  # type: ignore[method-assign] # on SQLite it goes past SQLAlchemy
    try:
        yield statements
    finally:
        Transaction.run = run  # type: ignore[method-assign]
        event.remove(Engine, "before_cursor_execute", catch)


def plan(ledger: Ledger, statement: str, parameters: Any) -> list[str]:
    """The lines of a statement's query plan."""
    with ledger.reading() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row.detail for row in rows]
