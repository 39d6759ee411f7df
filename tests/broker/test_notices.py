"""Announcements through Postgres: heard after the commit, found again after an outage, never too long for a notice."""

from collections.abc import Callable, Iterator

import postgres
import psycopg
import pytest
from conformance.moves import submission

from celeriac.broker import Ear, Listener, News, announcer, listen
from celeriac.broker.announcements import together
from celeriac.broker.notices import payloads
from celeriac.instance import connect
from celeriac.ledger import submit
from celeriac.settings import Settings

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(blank_postgres: str) -> str:
    return blank_postgres


@pytest.fixture
def ear(url: str) -> Iterator[Listener]:
    listener = listen(url, Ear.HUB)
    yield listener
    listener.close()


def hear(ear: Listener, wait_until: Callable[..., None], news: News) -> None:
    """Wait until these very news were heard, whatever else was."""
    heard: list[News] = []

    def told() -> bool:
        heard.extend(ear.receive())
        return news in heard

    wait_until(told, f"{news} is heard")


def test_news_reach_those_they_concern(url: str, ear: Listener, wait_until: Callable[..., None]):
    teller = announcer(url)

    teller.announce(News(queues=["big"], ends={"a": 3}))

    hear(ear, wait_until, News(ends={"a": 3}))
    teller.close()


def test_what_is_told_before_the_end_of_a_process_is_sent(url: str, ear: Listener, wait_until: Callable[..., None]):
    teller = announcer(url)

    teller.announce(News(ends={"last": 1}))
    teller.close()

    hear(ear, wait_until, News(ends={"last": 1}))


def test_a_listener_that_lost_its_connection_looks_at_everything_and_hears_again(
    url: str, ear: Listener, wait_until: Callable[..., None]
):
    teller = announcer(url)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'celeriac news'"
        )

    hear(ear, wait_until, News())
    teller.announce(News(ends={"b": 1}))

    hear(ear, wait_until, News(ends={"b": 1}))
    teller.close()


def test_a_server_that_restarts_is_heard_again(wait_until: Callable[..., None]):
    with postgres.private() as server:
        ear, teller = listen(server.conninfo(), Ear.HUB), announcer(server.conninfo())
        teller.announce(News(ends={"a": 1}))
        hear(ear, wait_until, News(ends={"a": 1}))

        server.stop()
        teller.announce(News(ends={"lost": 1}))
        server.start()

        hear(ear, wait_until, News())
        teller.announce(News(ends={"b": 1}))
        hear(ear, wait_until, News(ends={"b": 1}))
        ear.close()
        teller.close()


def test_long_ids_never_make_a_notice_too_long():
    ends = {f"\x01{number:0254}": number for number in range(1000)}

    told = payloads(News(ends=ends))

    assert all(len(payload) < 8000 for _, payload in told)


def test_a_caller_that_rolls_back_announces_nothing(url: str, wait_until: Callable[..., None]):
    ledger, ear = connect(Settings(database_url=url)), listen(url, Ear.WORKER)
    connection = psycopg.connect(url.replace("+psycopg", ""))

    with ledger.joining(connection):
        ledger.do(submit, submission(queue="rolled-back"))
    connection.rollback()
    with ledger.joining(connection):
        ledger.do(submit, submission(queue="kept"))
    assert ear.receive() == []
    connection.commit()

    heard: list[News] = []
    wait_until(lambda: heard.extend(ear.receive()) or heard, "the commit is heard")
    assert together(heard) == News(queues=["kept"])
    connection.close()
    ear.close()
    ledger.close()


def test_news_of_a_long_outage_are_dropped_and_a_call_to_look_takes_their_place(wait_until: Callable[..., None]):
    with postgres.private() as server:
        ear, teller = listen(server.conninfo(), Ear.KEEPER), announcer(server.conninfo())
        teller.announce(News(due_at=1))
        hear(ear, wait_until, News(due_at=1))
        server.stop()
        for number in range(20_000):
            teller.announce(News(ends={f"job {number}": 1}))
        wait_until(lambda: len(teller._waiting) < 20_000, "what waits is bounded")
        other = listen(server.conninfo(), Ear.HUB)
        server.start()

        hear(other, wait_until, News())
        for closed in (ear, other, teller):
            closed.close()


def test_a_url_that_says_how_the_ledger_prepares_can_be_listened_to(url: str, wait_until: Callable[..., None]):
    ear, teller = listen(f"{url}?prepare_threshold=0", Ear.HUB), announcer(f"{url}?prepare_threshold=0")

    teller.announce(News(ends={"a": 1}))

    hear(ear, wait_until, News(ends={"a": 1}))
    ear.close()
    teller.close()
