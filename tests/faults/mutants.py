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
    assert "AND jobs.attempt = v.attempt AND jobs.state || '' = 'running'" in template
    loose = template.replace("AND jobs.attempt = v.attempt AND jobs.state || '' = 'running'", "")
    module._HELD = Sql(loose, key="int", attempt="int")


def without_the_claim() -> None:
    """Hand out jobs without taking them: whoever asks gets them again."""
    import sys

    module = sys.modules["celeriac.ledger.moves.claim"]
    template = module._CLAIM._template
    assert "SET state = 'running', attempt" in template
    loose = template.replace("SET state = 'running', attempt", "SET state = 'queued', attempt")
    module._CLAIM = Sql(loose, **module._CLAIM._columns)
    these = module._CLAIM_THESE._template
    module._CLAIM_THESE = Sql(these.replace("SET state = 'running', attempt", "SET state = 'queued', attempt"))


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


def links_in_a_commit_of_their_own() -> None:
    """End an attempt first, and submit what follows from it a little later."""
    import sys
    import threading
    from dataclasses import replace

    from celeriac.ledger import submit
    from celeriac.worker import node

    module = sys.modules["celeriac.ledger.moves.finish"]
    send_on = module._send_on

    def end_first(tx, outcomes):
        for submission in (submission for outcome in outcomes for submission in outcome.sends):
            threading.Timer(1, lambda each=submission: node.this().ledger.do(submit, each)).start()
        return send_on(tx, [replace(outcome, sends=()) for outcome in outcomes])

    module._send_on = end_first


def counts_apart_from_rows() -> None:
    """Count in a transaction of its own, after that of the rows: here it never comes to it."""
    from celeriac.ledger.store import Transaction

    Transaction.count = lambda *deltas: None


def acknowledged_before_the_adoption() -> None:
    """Take a stranger's message from the broker, and write its job a little later."""
    import threading

    from celeriac.worker.hints import Hints

    adopt = Hints._adopt

    def settle_first(self, letter, stranger):
        self._consumer.settle([letter])
        threading.Timer(3, lambda: self._node.inbox.put(lambda: adopt(self, letter, stranger))).start()

    Hints._adopt = settle_first


if "MUTANT" in os.environ:
    globals()[os.environ["MUTANT"]]()

from jobs_for_tests import app  # noqa: E402, F401
