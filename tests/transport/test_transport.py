"""The transport in Celery's event loop: when it looks for work."""

import pytest
from kombu.asynchronous import Hub

from celeriac import Celeriac
from celeriac.ledger import close_ledger
from celeriac.settings import load


class Looks:
    """A source that counts how often it was told to look."""

    queues = frozenset({"small"})
    looks = 0

    def fetch(self) -> None:
        """Nobody announces anything here."""

    def cancels(self) -> None:
        """Nobody cancels anything either."""

    def look(self) -> None:
        """Count."""
        self.looks += 1


@pytest.fixture
def app(ledger_url, tmp_path, monkeypatch):
    monkeypatch.setenv("CELERIAC_HOME", str(tmp_path))
    monkeypatch.setenv("CELERIAC_DATABASE_URL", ledger_url)
    yield Celeriac("looks")
    close_ledger(load().ledger_url)


def test_it_looks_as_soon_as_the_loop_runs_and_does_not_wait_a_second_for_that(app):
    source, hub = Looks(), Hub()
    with app.connection_for_read() as connection:
        connection.connect()
        transport = connection.transport
        transport.source = source
        transport.register_with_event_loop(connection, hub)
        hub.run_once()

        assert source.looks == 1
    hub.close()
