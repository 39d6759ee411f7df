"""Connecting a process to its instance: the ledger of the settings, and what tells others of its commits.

The ledger and the broker do not know each other; here, and only here, they are tied together. With a broker,
queues that got jobs are hinted at there; everything else, and all of it while the broker is down, goes the ledger's
own way.
"""

from collections.abc import Iterable
from contextlib import closing
from functools import partial
from weakref import WeakKeyDictionary

from celeriac.broker import News, Publisher, announcer, check_package, sender_to
from celeriac.ledger import Ledger, Transaction, open_ledger
from celeriac.ledger.backlog import Backlog
from celeriac.settings import Settings

_publishers: WeakKeyDictionary[Ledger, Publisher] = WeakKeyDictionary()


def connect(settings: Settings) -> Ledger:
    """Return this process's ledger, wired to tell the other processes what it commits.

    Raises:
        CannotStart: when the package that speaks to the broker is missing.
    """
    ledger = open_ledger(settings.ledger_url)
    if ledger.announce is None:
        _wire(ledger, settings)
    return ledger


def publisher_of(ledger: Ledger) -> Publisher | None:
    """Return what hints at work in the broker, None without one."""
    return _publishers.get(ledger)


def _wire(ledger: Ledger, settings: Settings) -> None:
    check_package(settings.broker_url)
    teller = ledger.wired.enter_context(closing(announcer(settings.announcements_url)))
    publisher: Publisher | None = None
    if settings.broker_url:

        def otherwise(queues: Iterable[str]) -> None:
            teller.announce(News(list(queues)))

        publisher = Publisher(partial(sender_to, settings.broker_url, settings.window), settings.window, otherwise)
        _publishers[ledger] = ledger.wired.enter_context(closing(publisher))

    def announce(tx: Transaction) -> None:
        queues = list(tx.wakes)
        if publisher is not None:
            hinted = publisher.tell({queue: jobs for queue, jobs in tx.wakes.items() if jobs})
            queues = [queue for queue in queues if queue not in hinted]
        teller.announce(_news(tx, queues))

    ledger.max_deaths = settings.max_deaths
    ledger.backlog = Backlog(ledger, settings.max_waiting)
    ledger.announce = announce
    if ledger.dialect == "postgresql":
        ledger.announce_joined = _announce_joined


def _news(tx: Transaction, queues: list[str]) -> News:
    return News(queues, list(tx.cancels), tx.ends, tx.steps, tx.due_at)


def _announce_joined(tx: Transaction) -> None:
    from celeriac.broker.notices import within

    within(tx.driver.execute, _news(tx, list(tx.wakes)))
