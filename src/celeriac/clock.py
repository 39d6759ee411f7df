"""The only place that reads time.

Ledger columns hold whole microseconds since the epoch; people and the API see
aware UTC datetimes. Leases are judged by `monotonic`, never by the wall clock.
`shift` lets time pass in a process that tests.
"""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_shift = 0  # microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# Nobody waits longer for a job, and no time limit is longer.
FAR = timedelta(days=36525)

monotonic = time.monotonic


def micros(moment: datetime | None = None) -> int:
    """Return a moment (default: now) as whole microseconds since the epoch."""
    if moment is None:
        return time.time_ns() // 1000 + _shift
    return (moment - _EPOCH) // MICROSECOND


def shift(micros: int) -> None:
    """Put the clock of this process forward (or back); for tests."""
    global _shift
    _shift += micros


def shifted() -> timedelta:
    """Return by how much the clock was put forward."""
    return _shift * MICROSECOND


def moment(stamp: int) -> datetime:
    """Return the aware UTC datetime of microseconds since the epoch; inverse of `micros`."""
    return _EPOCH + timedelta(microseconds=stamp)


def parsed(text: str | None) -> int | None:
    """Return an ISO 8601 time as microseconds since the epoch; without a zone it counts as UTC. None for None."""
    if text is None:
        return None
    read = datetime.fromisoformat(text)
    return micros(read if read.tzinfo else read.replace(tzinfo=UTC))


def rfc3339(stamp: int | None) -> str | None:
    """Return microseconds since the epoch as RFC 3339 in UTC, or None for None."""
    if stamp is None:
        return None
    seconds, fraction = divmod(stamp, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z" if fraction else f"{_second(seconds)}Z"


@lru_cache(256)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
