"""Connecting a process to its instance: the ledger of the settings, with announcements after each commit.

The ledger and the broker do not know each other; here, and only here, they are tied together.
"""

from contextlib import closing

from celeriac.broker import News, announcer
from celeriac.ledger import Ledger, Transaction, open_ledger
from celeriac.settings import Settings


def connect(settings: Settings) -> Ledger:
    """Return this process's ledger, wired to tell the other processes what it commits."""
    ledger = open_ledger(settings.ledger_url)
    if ledger.announce is None:
        teller = ledger.wired.enter_context(closing(announcer(settings.announcements_url)))

        def announce(tx: Transaction) -> None:
            teller.announce(_news(tx))

        ledger.max_deaths = settings.max_deaths
        ledger.announce = announce
        if ledger.dialect == "postgresql":
            ledger.announce_joined = _announce_joined
    return ledger


def _news(tx: Transaction) -> News:
    return News(list(tx.wakes), list(tx.cancels), tx.ends, tx.steps, tx.due_at)


def _announce_joined(tx: Transaction) -> None:
    from celeriac.broker.notices import within

    within(tx.driver.execute, _news(tx))
