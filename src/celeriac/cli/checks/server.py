"""A Postgres server: its version, the settings that promises rest on, its clock, and whether it can announce.

Looks of `celeriac check`; with SQLite there is nothing to see here.
"""

from collections.abc import Iterator

from celeriac.cli.checks.database import existing
from celeriac.cli.database import sqlite_file
from celeriac.settings import Settings

Found = Iterator[tuple[str, str]]
OLDEST = 130000
CONNECTIONS = 50
SKEW_SECONDS = 1.0
PATIENCE_SECONDS = 3.0


def server(settings: Settings) -> Found:
    """Version and settings."""
    if sqlite_file(settings) is not None:
        return
    from celeriac.ledger import condition

    ledger = existing(settings)
    if ledger is None:
        return
    found = condition.server(ledger)
    version = int(found["server_version_num"])
    told = f"Postgres {version // 10_000}.{version % 10_000}"
    yield ("fine", told) if version >= OLDEST else ("error", f"{told} is too old; 13 is the oldest that works")
    if found["fsync"] != "on":
        yield "error", "fsync is off: a power cut may destroy the database. Set fsync = on in postgresql.conf"
    if found["synchronous_commit"] not in ("on", "remote_apply"):
        yield (
            "warning",
            (
                f"synchronous_commit is {found['synchronous_commit']}: accepted jobs may be lost with the server. "
                "Set synchronous_commit = on"
            ),
        )
    if "true" in found["in_recovery"] or found["default_transaction_read_only"] == "on":
        yield "error", "the server takes no writes: it is a standby, or read-only. Connect to the primary"
    if found["server_encoding"] != "UTF8":
        yield "error", f"the database is in {found['server_encoding']}. Make one with ENCODING 'UTF8'"
    most, used = int(found["max_connections"]), int(found["used_connections"])
    if most < CONNECTIONS or used > 0.9 * most:
        yield (
            "warning",
            (
                f"{used} of {most} connections are in use; each process takes up to 18. Raise max_connections, "
                "or put a pgbouncer in front"
            ),
        )
    else:
        yield "fine", f"{used} of {most} connections in use"


def clocks(settings: Settings) -> Found:
    """The server's clock against ours."""
    if sqlite_file(settings) is not None:
        return
    from celeriac.ledger import condition

    ledger = existing(settings)
    if ledger is None:
        return
    offset = condition.clock_offset(ledger)
    if abs(offset) > SKEW_SECONDS:
        ahead = "ahead of" if offset > 0 else "behind"
        yield (
            "warning",
            (
                f"the database's clock is {abs(offset):.1f} s {ahead} this machine's: due times are off by that. "
                "Let both keep time by NTP"
            ),
        )
    else:
        yield "fine", f"the database's clock is within {max(abs(offset), 0.01):.2f} s of this machine's"


def announcements(settings: Settings) -> Found:
    """LISTEN must work where announcements go; through a pgbouncer in transaction mode it does not."""
    if sqlite_file(settings) is not None:
        return
    import psycopg

    from celeriac.broker import Ear, News, announcer, listen, wait_for_news

    existing(settings)  # or raises the sentence, which is told already
    url = settings.announcements_url
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        told = " ".join(str(error).split()).rstrip(" .?!")
        yield "warning", f"the server of CELERIAC_DATABASE_DIRECT_URL cannot be reached: {told}. All waits for a look"
        return
    ear, mouth = listen(url, Ear.HUB), announcer(url)
    try:
        while wait_for_news(ear, 0.2):
            ear.receive()
        mouth.announce(News(ends={"celeriac-check": 1}))
        heard = wait_for_news(ear, PATIENCE_SECONDS)
    finally:
        mouth.close()
        ear.close()
    if heard:
        yield "fine", "what one process announces, another hears"
    else:
        yield (
            "warning",
            (
                "announcements are not heard, so everything waits for a look at the database once a second. Behind a "
                "pgbouncer in transaction mode set CELERIAC_DATABASE_DIRECT_URL to the server itself"
            ),
        )


LOOKS = {"server": server, "clock": clocks, "announcements": announcements}
