"""Servers that change places, that are full, and strangers who hold what others need."""

import contextlib
from collections.abc import Iterator

import postgres
import psycopg
import pytest
from conformance.moves import accept, running, select, submission, success
from databases import on_postgres
from instance import until

from celeriac.errors import LedgerFull, LedgerLocked, LedgerUnavailable
from celeriac.ledger import ORDER, Group, Ledger, finish, migrations, read, submit
from celeriac.ledger.dialects.postgres import _spread

pytestmark = pytest.mark.postgres


def sql(server: postgres.Server, *statements: str) -> None:
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def may_be_written(server: postgres.Server, yes: bool) -> None:
    """Let a server be the leader or a follower, and wait until its sessions know."""
    value = "off" if yes else "on"
    sql(server, "SET default_transaction_read_only = off",
        f"ALTER SYSTEM SET default_transaction_read_only = {value}", "SELECT pg_reload_conf()")  # fmt: skip

    def is_known() -> bool:
        with psycopg.connect(server.conninfo()) as connection:
            [shown] = connection.execute("SHOW default_transaction_read_only").fetchone() or [""]
        return shown == value

    until(is_known, "the server to know")


def opened(url: str) -> Ledger:
    return Ledger(url.replace("postgresql:", "postgresql+psycopg:"))


def test_of_several_servers_the_one_that_can_be_written_is_found_also_after_they_changed_places():
    with postgres.private() as first, postgres.private() as second:
        for server in (first, second):
            ledger = opened(server.conninfo())
            migrations.upgrade(ledger)
            ledger.close()
        may_be_written(first, False)
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        ledger = opened(f"postgresql://postgres@{hosts}/{postgres.DATABASE}")
        accept(ledger, id="on the second")

        may_be_written(second, False)
        may_be_written(first, True)
        until(lambda: _accepted(ledger, "on the first"), "the first to be found")

        assert select(ledger, "SELECT id FROM jobs") == [("on the first",)]
        ledger.close()


def _accepted(ledger: Ledger, id: str) -> bool:
    with contextlib.suppress(LedgerUnavailable):
        return accept(ledger, id=id) == id
    return False


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+psycopg://a@h:1/db", "postgresql+psycopg://a@h:1/db"),
        ("postgresql+psycopg://a:b@h:1,i:2/db", "postgresql+psycopg://a:b@/db?{rw}&host=h:1&host=i:2"),
        ("postgresql+psycopg://h,i/db?x=1", "postgresql+psycopg:///db?x=1&{rw}&host=h&host=i"),
        (
            "postgresql+psycopg://h,i/db?target_session_attrs=any",
            "postgresql+psycopg:///db?target_session_attrs=any&host=h&host=i",
        ),
    ],
)
def test_a_url_of_several_hosts_is_told_as_sqlalchemy_takes_it(url: str, told: str):
    assert _spread(url) == told.format(rw="target_session_attrs=read-write")


def test_a_full_disk_is_told_nothing_acknowledged_is_lost_and_with_space_it_goes_on():
    with postgres.on_a_small_disk() as (server, ballast):
        ledger = opened(server.conninfo())
        migrations.upgrade(ledger)
        ballast.fill(but=2_000_000)
        accepted: list[str] = []
        with pytest.raises(LedgerFull):
            _fill(ledger, accepted)

        assert len(accepted) == select(ledger, "SELECT COUNT(*) FROM jobs")[0][0]  # reading works, and all is there
        ballast.free()
        accept(ledger)
        ledger.close()


def _fill(ledger: Ledger, accepted: list[str]) -> None:
    for _ in range(100_000):
        accepted.append(accept(ledger, args=f'"{"x" * 1000}"', tags=("t" * 200,)))


@pytest.fixture
def holder(ledger_url: str) -> Iterator[psycopg.Connection]:
    """Somebody who begins a transaction and goes to lunch."""
    with psycopg.connect(ledger_url.replace("+psycopg", "")) as connection:
        yield connection
        connection.rollback()


@on_postgres
def test_a_row_that_a_stranger_holds_delays_only_what_concerns_it(ledger: Ledger, holder: psycopg.Connection):
    held, free = running(ledger), running(ledger)
    holder.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", (held.id,))
    group, answers = Group(ledger, ORDER, patient=True), {}
    for job in (held, free):
        group.add(finish, success(job), lambda answer, id=job.id: answers.update({id: answer}))
    group.add(submit, submission(id="new"), lambda answer: answers.update(new=answer.id))

    until(lambda: len(answers) == 2, "what is not held up")
    assert set(answers) == {free.id, "new"}
    holder.rollback()
    until(lambda: len(answers) == 3, "what was held up")
    assert answers[held.id] is True
    group.stop()


@on_postgres
def test_who_asks_about_a_row_that_a_stranger_holds_is_told_so(ledger: Ledger, holder: psycopg.Connection):
    held = running(ledger)
    holder.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", (held.id,))
    group = Group(ledger, ORDER)

    with pytest.raises(LedgerLocked, match="Another open transaction"):
        group.do(finish, success(held))
    group.stop()


@on_postgres
def test_what_was_put_off_is_written_when_the_group_ends(ledger: Ledger, holder: psycopg.Connection, caplog):
    held = running(ledger)
    holder.execute("SELECT 1 FROM jobs WHERE id = %s FOR UPDATE", (held.id,))
    group, answers = Group(ledger, ORDER, patient=True), []
    group.add(finish, success(held), answers.append)
    until(lambda: "1 moves wait for rows" in caplog.text, "it to be put off")
    holder.rollback()
    group.stop()

    assert answers == [True]


@on_postgres
def test_a_knock_finds_out_that_nobody_gets_in_any_more(ledger: Ledger, ledger_url: str):
    ledger.knock()
    assert read.any_queued(ledger, ["default"]) is False  # this one has a connection
    name = ledger_url.rpartition("/")[2]
    with psycopg.connect(ledger_url.replace("+psycopg", "").replace(f"/{name}", "/postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            with pytest.raises(LedgerUnavailable):
                ledger.knock()
            assert read.any_queued(ledger, ["default"]) is False
        finally:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT -1")
