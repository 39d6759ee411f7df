"""Named places where a test may kill the process: between every two steps that must hold together.

Off unless CELERIAC_FAILPOINT names one, as `name` or `name:3` for the third time it is passed.
The fault suite (tests/faults) starts processes with it; it costs a comparison otherwise.
"""

import os
import signal

_name, _, _count = os.environ.get("CELERIAC_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    """Die here, as of SIGKILL, if this is the place and the time."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
