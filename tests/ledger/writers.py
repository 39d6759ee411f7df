"""Programs that tests run as processes of their own: writers that share a ledger, fork, or are killed.

`python -m ledger.writers WHAT URL …` from the folder of the tests.
"""

import os
import signal
import sys
import threading

from conformance.moves import accept, submission

from celeriac.ledger import Ledger, open_ledger, read, submit


def hammer(url: str, name: str, commits: int) -> None:
    """Write many small transactions, each with a read beside it."""
    ledger = open_ledger(url)
    for number in range(commits):
        accept(ledger, id=f"{name}-{number}")
        read.any_queued(ledger, ["default"])


def submit_once(url: str, name: str) -> None:
    """Submit one job, and say so if that was survived."""
    accept(open_ledger(url), id=name)
    print("survived")


def hold(url: str) -> None:
    """Wait, with a write transaction open, to be killed."""
    with open_ledger(url).transaction() as tx:
        submit(tx, [submission(id="half")])
        tx.flush()
        print("inside", flush=True)
        signal.pause()


def fork(url: str) -> None:
    """Fork while a thread is inside a write transaction; parent and children write afterwards."""
    ledger = open_ledger(url)
    for round in range(3):
        inside = threading.Event()

        def write(round: int = round, inside: threading.Event = inside) -> None:
            with ledger.transaction() as tx:
                inside.set()
                submit(tx, [submission(id=f"thread-{round}-{number}") for number in range(2000)])

        thread = threading.Thread(target=write)
        thread.start()
        inside.wait(30)
        child = os.fork()
        if child == 0:
            for number in range(20):
                accept(open_ledger(url), id=f"child-{round}-{number}")
            grandchild = os.fork()
            if grandchild:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
            accept(open_ledger(url), id=f"grandchild-{round}")
            os._exit(0)
        for number in range(20):
            accept(ledger, id=f"parent-{round}-{number}")
        thread.join()
        _, status = os.waitpid(child, 0)
        assert status == 0, f"the child ended with {status}"


def check_after_fork(url: str) -> None:
    """Tell the ledgers of a parent and its child apart."""
    here = open_ledger(url)
    assert open_ledger(url) is here
    child = os.fork()
    if child == 0:
        os._exit(0 if open_ledger(url) is not here and isinstance(open_ledger(url), Ledger) else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    what, url, *rest = sys.argv[1:]
    programs = {
        "hammer": lambda: hammer(url, rest[0], int(rest[1])),
        "submit": lambda: submit_once(url, rest[0]),
        "hold": lambda: hold(url),
        "fork": lambda: fork(url),
        "check-after-fork": lambda: check_after_fork(url),
    }
    programs[what]()
