"""Deliberately broken variants of the code. Each must turn the oracle red, or the tests prove nothing.

A process that loads its app from here runs with the promise named in MUTANT broken.
"""

import os

from celeriac.ledger import finish as _  # noqa: F401 - the module below is what is changed
from celeriac.ledger import group
from celeriac.ledger.sql import Sql


def without_the_fence() -> None:
    """Accept an outcome whatever attempt it is of, and whatever became of the job meanwhile."""
    import sys

    module = sys.modules["celeriac.ledger.moves.finish"]
    template = module._HELD._template
    assert "AND jobs.attempt = v.attempt AND jobs.state = 'running'" in template
    loose = template.replace("AND jobs.attempt = v.attempt AND jobs.state = 'running'", "")
    module._HELD = Sql(loose, key="int", attempt="int")


def without_the_claim() -> None:
    """Hand out jobs without taking them: whoever asks gets them again."""
    import sys

    module = sys.modules["celeriac.ledger.moves.claim"]
    template = module._CLAIM._template
    assert "SET state = 'running', attempt" in template
    module._CLAIM = Sql(template.replace("SET state = 'running', attempt", "SET state = 'queued', attempt"))


def before_the_commit() -> None:
    """Answer a submit before it is written: acknowledged from a memory buffer."""
    import threading

    from celeriac import clock
    from celeriac.jobs import Receipt
    from celeriac.ledger import submit
    from celeriac.states import State

    add = group.Group.add

    def answer_first(self, move, item, callback, urgent=True):
        if move is not submit:
            return add(self, move, item, callback, urgent)
        self._deliver(lambda: callback(Receipt(item.id, 1, State.QUEUED, clock.micros())))
        return threading.Timer(0.5, add, [self, move, item, lambda answer: None]).start()

    group.Group.add = answer_first


if "MUTANT" in os.environ:
    globals()[os.environ["MUTANT"]]()

from jobs_for_tests import app  # noqa: E402, F401
