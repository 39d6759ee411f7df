"""The lifeline: a pipe whose writing end only the supervisor holds, so that its death is heard by all.

However the supervisor dies, SIGKILL included, the kernel closes its end; each child then stops as if
it had been told to. Works on every Unix, and leaves nothing behind.
"""

import os
import signal
import threading
import time
from contextlib import suppress

VARIABLE = "CELERIAC_LIFELINE"
GRACE_SECONDS = 60


def hold_on() -> None:
    """In a child: stop this process when its supervisor is gone. Does nothing without a supervisor."""
    number = os.environ.pop(VARIABLE, "")
    if not number:
        return
    descriptor = int(number)
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_wait, args=(descriptor,), name="lifeline", daemon=True).start()


def _wait(descriptor: int) -> None:
    with suppress(OSError):
        os.read(descriptor, 1)  # nobody ever writes: this returns at the end of the pipe
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    # It did not stop. It leads its own process group, in which its pool's children are too.
    with suppress(OSError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
