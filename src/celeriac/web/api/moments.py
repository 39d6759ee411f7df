"""Times as people write them in requests: RFC 3339, with a zone.

Pure. Used for fields of a submission and for values of a query alike, so that both say the
same of a wrong one.
"""

from datetime import datetime, timedelta

from celeriac import clock

# A clock that runs a little behind ours, or a request that took a while, means "now".
TOLERANCE = timedelta(minutes=5)


def moment(text: object) -> int:
    """Return microseconds since the epoch. Raises ValueError with what is wrong."""
    try:
        at = datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError:
        raise ValueError("is not a time; write it like 2030-01-31T12:00:00Z") from None
    if at.tzinfo is None:
        raise ValueError("has no time zone; end it with Z for UTC, as in 2030-01-31T12:00:00Z")
    return clock.micros(at)


def future(text: object, now: int) -> int:
    """Return microseconds since the epoch of a time to come. Raises ValueError when it is long past or too far off."""
    at = moment(text)
    if at < now - micros_in(TOLERANCE):
        raise ValueError("is in the past")
    if at > now + micros_in(clock.FAR):
        raise ValueError("is more than 100 years ahead")
    return at


def micros_in(length: timedelta) -> int:
    """Return a length of time in microseconds."""
    return length // timedelta(microseconds=1)
