"""The condition of a database: what `celeriac check` and `celeriac backup` ask of it. Changes nothing.

The settings of a Postgres server that promises depend on, how far its clock is from ours, whether a copy
is whole and what is in it.
"""

import time
from pathlib import Path

from sqlalchemy import text

from celeriac import clock
from celeriac.errors import LedgerUnavailable
from celeriac.ledger import migrations
from celeriac.ledger.store import Ledger

SERVER = ("server_version_num", "fsync", "synchronous_commit", "full_page_writes", "max_connections",
          "default_transaction_read_only", "server_encoding")  # fmt: skip
COUNTED = ("jobs", "events", "tokens")


def server(ledger: Ledger) -> dict[str, str]:
    """Return the settings of the Postgres server that matter here, and whether it is a standby (`in_recovery`)."""
    with ledger.reading() as connection:
        rows = connection.execute(
            text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)"), {"names": list(SERVER)}
        )
        found = {row.name: str(row.setting) for row in rows}
        found["in_recovery"] = str(connection.execute(text("SELECT pg_is_in_recovery()")).scalar()).lower()
        found["used_connections"] = str(connection.execute(text("SELECT count(*) FROM pg_stat_activity")).scalar())
    return found


def clock_offset(ledger: Ledger) -> float:
    """Return how many seconds the database server's clock is ahead of ours, from the quickest of three looks."""
    looks = []
    with ledger.reading() as connection:
        for _ in range(3):
            began, at = time.monotonic(), clock.micros()
            theirs = connection.execute(text("SELECT EXTRACT(EPOCH FROM clock_timestamp())")).scalar()
            took = time.monotonic() - began
            looks.append((took, float(theirs or 0) - at / 1_000_000 - took / 2))
    return min(looks)[1]


def examine(path: Path) -> dict[str, int | str]:
    """Read a copy of a SQLite ledger through and return what is in it: its revision and numbers of rows.

    Raises LedgerUnavailable when it is damaged, LedgerVersion when it is not a ledger of this version.
    """
    ledger = Ledger(f"sqlite:///{path}")
    try:
        with ledger.reading() as connection:
            faults = [str(row[0]) for row in connection.execute(text("PRAGMA integrity_check"))]
            if faults != ["ok"]:
                raise LedgerUnavailable(f"{path} is damaged: {faults[0]}.")
        migrations.check(ledger)
        with ledger.reading() as connection:
            counted = {name: connection.execute(text(f"SELECT COUNT(*) FROM {name}")).scalar() for name in COUNTED}
        return {"revision": migrations.head(), **{name: int(number or 0) for name, number in counted.items()}}
    finally:
        ledger.close()
