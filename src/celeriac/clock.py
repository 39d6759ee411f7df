"""The only place that reads time.

Ledger columns hold whole microseconds since the epoch; people and the API see
aware UTC datetimes. Leases are judged by `monotonic`, never by the wall clock.
Tests replace `now` to make time pass.
"""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

monotonic = time.monotonic


def now() -> datetime:
    """Return the current moment as an aware UTC datetime."""
    return datetime.now(UTC)


def micros(moment: datetime | None = None) -> int:
    """Return a moment (default: now) as whole microseconds since the epoch."""
    if moment is None:
        return time.time_ns() // 1000
    return (moment - _EPOCH) // _MICROSECOND


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
    return None if stamp is None else moment(stamp).isoformat().replace("+00:00", "Z")
