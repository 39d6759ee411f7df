"""What differs between the databases under the ledger: how they connect, take turns, run a statement, and fail.

`store.py` asks `dialect_of(url)` for one of the two. Statements themselves are written once, in
`sql.py`; here is only how a driver gets them and what its errors mean.
"""

from celeriac.errors import CannotStart
from celeriac.ledger.dialects.dialect import Dialect, Rows
from celeriac.ledger.dialects.sqlite import SQLite

__all__ = ["Dialect", "Rows", "dialect_of"]


def dialect_of(url: str) -> Dialect:
    """Return how to speak to the database of a SQLAlchemy URL."""
    if url.startswith("sqlite"):
        return SQLite(url)
    try:
        from celeriac.ledger.dialects.postgres import Postgres
    except ImportError:
        raise CannotStart(
            "A ledger on Postgres needs the driver psycopg. Install it with `pip install 'celeriac[postgres]'`."
        ) from None
    return Postgres(url)
