"""Named places where a test may hurt the process: between every two steps that must hold together.

Off unless CELERIAC_FAILPOINT says so, in parts separated by commas: `name` kills the process there as of SIGKILL,
`name:3` at the third time, `name:kill:0.01` each time with this chance, and `name:error:0.05` raises instead, as if the
connection had gone: after a step the caller then sees a failure of what was done. `:7` behind it seeds the chances.
The fault suite (tests/faults) starts processes with it; it costs a comparison otherwise.
"""

import logging
import os
import random
import signal
from collections.abc import Callable

log = logging.getLogger(__name__)

# Each place, and the kind of process that passes it while it does its work.
NAMES = {
    "before-commit": "any",  # everything is written, nothing is committed
    "after-commit": "any",  # committed; nobody has been told
    "main-claimed": "worker",  # the claim is committed, no job handed to Celery yet
    "main-accepted": "worker",  # a child has begun with a job
    "child-after-run": "child",  # user code has returned, the main process does not know
    "main-before-outcome": "worker",  # the child has answered, the outcome is not handed to the group
    "main-after-outcome": "worker",  # handed over, not committed
    "finish-before-links": "worker",  # within the transaction: before what follows a success is submitted
    "finish-before-chords": "worker",  # and before its part of a chord is counted
    "operation-moved": "keeper",  # a stretch of an operation's jobs is moved, not noted
    "before-publish": "sender",  # the broker has not got the hints of a commit
    "after-publish": "sender",  # it has them, and its confirmation is lost
    "after-receive": "consumer",  # messages have been received, nobody has looked at them
    "before-ack": "consumer",  # a hint is about to be acknowledged, or put back; a stranger's message is a job by then
    "after-ack": "consumer",  # it is, and the connection may be gone
}


def failpoint(name: str) -> None:
    """Die or fail here, if this is the place and the time. Raises Injected."""
    if _armed and name in _armed:
        _armed[name]()


class Injected(ConnectionError):
    """What a driver would raise when its connection goes."""


def _armed_by(words: str) -> dict[str, Callable[[], None]]:
    armed = {}
    for part in filter(None, words.split(",")):
        name, _, how = part.partition(":")
        if name not in NAMES:
            raise ValueError(f"CELERIAC_FAILPOINT names {name!r}, which is no failpoint: {', '.join(NAMES)}")
        mode, _, chance = how.partition(":")
        armed[name] = _by_chance(name, mode, chance) if chance else _at_time(name, int(mode or 1))
    return armed


def _at_time(name: str, left: int) -> Callable[[], None]:
    def strike() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            _die(name)

    return strike


def _by_chance(name: str, mode: str, chance: str) -> Callable[[], None]:
    rate, _, seed = chance.partition(":")
    dice, limit = random.Random(seed or None), float(rate)

    def strike() -> None:
        if dice.random() < limit:
            if mode == "kill":
                _die(name)
            log.warning("Failpoint %s fails.", name)
            raise Injected(f"the failpoint {name} has ended the connection")

    return strike


def _die(name: str) -> None:
    os.write(2, f"Failpoint {name} kills.\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


_armed = _armed_by(os.environ.get("CELERIAC_FAILPOINT", ""))


def arm(words: str) -> None:
    """Arm the failpoints that these words name, and no others."""
    global _armed
    _armed = _armed_by(words)
