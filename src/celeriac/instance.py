"""Connecting a process to its instance: the ledger of the settings, with announcements after each commit.

The ledger and the broker do not know each other; here, and only here, they are tied together.
"""

from contextlib import closing

from celeriac.broker import Announcer
from celeriac.ledger import Ledger, Transaction, open_ledger
from celeriac.settings import Settings


def connect(settings: Settings) -> Ledger:
    """Return this process's ledger, wired to tell the other processes what it commits."""
    ledger = open_ledger(settings.ledger_url)
    if ledger.announce is None:
        announcer = ledger.wired.enter_context(closing(Announcer(settings.ledger_url)))

        def announce(tx: Transaction) -> None:
            announcer.announce(tx.wakes, tx.cancels, tx.ends, tx.steps, tx.due_at)

        ledger.max_deaths = settings.max_deaths
        ledger.announce = announce
    return ledger
