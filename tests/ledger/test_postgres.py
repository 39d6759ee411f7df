"""Postgres as a ledger: several writers at once, transactions that meet, a server that goes and comes back."""

import signal
import threading
from collections.abc import Callable, Iterator

import postgres
import psycopg
import pytest
from conformance.moves import accept, counted, running, select, submission
from databases import on_postgres
from sqlalchemy import RootTransaction

from celeriac.access import SYSTEM
from celeriac.errors import LedgerBusy, LedgerUnavailable, LedgerUncertain
from celeriac.jobs import ClaimRequest, Filter, Receipt
from celeriac.ledger import ORDER, Group, Ledger, claim, migrations, pages, read, submit
from celeriac.ledger.dialects import postgres as dialect

pytestmark = pytest.mark.postgres


# Waits until they are gone.
TERMINATE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'celeriac'"


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with postgres.private() as server:
        yield server


@pytest.fixture
def hurt(server: postgres.Server) -> Iterator[Ledger]:
    """A ledger on a server of its own, which the test may hurt."""
    ledger = Ledger(server.conninfo().replace("postgresql:", "postgresql+psycopg:"))
    migrations.upgrade(ledger)
    yield ledger
    ledger.close()


def at_once(number: int, act: Callable[[int], None]) -> None:
    """Do something in many threads, as nearly at the same instant as possible."""
    barrier = threading.Barrier(number)

    def run(place: int) -> None:
        barrier.wait(30)
        act(place)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@pytest.mark.parametrize("ledger_url", ["sqlite", "postgres"], indirect=True)
def test_one_key_at_the_same_instant_makes_one_job(ledger: Ledger):
    receipts: list[Receipt] = []

    at_once(12, lambda place: receipts.append(ledger.do(submit, submission(idempotency_key="k", fingerprint="f"))))

    assert len(receipts) == 12
    assert len({receipt.id for receipt in receipts}) == 1
    assert sum(not receipt.replayed for receipt in receipts) == 1
    assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(1,)]


@on_postgres
def test_batches_that_take_the_same_keys_in_another_order_wait_for_each_other(ledger: Ledger):
    def act(place: int) -> None:
        keys = [f"k{number}" for number in range(20)]
        with ledger.transaction() as tx:
            submit(tx, [submission(idempotency_key=key, fingerprint="f") for key in (keys, keys[::-1])[place % 2]])

    at_once(6, act)

    assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(20,)]


def deadlock(ledger: Ledger, group: bool) -> None:
    """Let two writers lock two rows in opposite orders, once; the one that loses has to do it again."""
    jobs = [running(ledger).key for _ in range(2)]
    met = threading.Barrier(2)
    tries: list[int] = []

    def lock(tx, items):
        tries.append(1)
        for number, key in enumerate(items[0]):
            tx.connection.exec_driver_sql(f"UPDATE jobs SET cost = 1 WHERE key = {key}")
            if number == 0 and len(tries) <= 2:
                met.wait(30)
        return [None]

    groups = [Group(ledger, [*ORDER, lock]) for _ in range(2)]
    orders = [jobs, jobs[::-1]]
    at_once(2, lambda place: groups[place].do(lock, orders[place]) if group else ledger.do(lock, orders[place]))
    for each in groups:
        each.stop()
    assert len(tries) == 3
    assert select(ledger, "SELECT COUNT(*) FROM jobs WHERE cost = 1") == [(2,)]


@on_postgres
@pytest.mark.parametrize("group", [False, True])
def test_a_deadlock_is_tried_again(ledger: Ledger, group: bool):
    deadlock(ledger, group)


def test_connections_that_the_server_closed_are_noticed_before_they_are_used(hurt: Ledger, server: postgres.Server):
    accept(hurt)
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(TERMINATE)

    accept(hurt)
    assert read.any_queued(hurt, ["default"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_is_gone_is_unavailable_and_comes_back(hurt: Ledger, server: postgres.Server, number: int):
    accept(hurt, id="before")
    server.stop(number)

    with pytest.raises(LedgerUnavailable):
        accept(hurt, id="meanwhile")
    with pytest.raises(LedgerUnavailable):
        read.any_queued(hurt, ["default"])
    server.start()

    accept(hurt, id="after")
    assert select(hurt, "SELECT id FROM jobs ORDER BY key") == [("before",), ("after",)]


def test_a_server_that_may_only_be_read_is_unavailable_for_writing(hurt: Ledger, server: postgres.Server):
    accept(hurt)
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE celeriac SET default_transaction_read_only = on")
        connection.execute(TERMINATE)

    with pytest.raises(LedgerUnavailable, match="read-only"):
        accept(hurt)
    assert read.any_queued(hurt, ["default"])


@on_postgres
def test_more_writers_than_connections_are_told_that_the_ledger_is_busy(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dialect, "POOL_SECONDS", 0.05)
    monkeypatch.setattr(dialect, "POOL", 1)
    ledger = Ledger(ledger_url)
    with ledger.transaction(), ledger.transaction(), pytest.raises(LedgerBusy, match="connections"):
        accept(ledger)

    accept(ledger)
    ledger.close()


@on_postgres
def test_statements_are_not_prepared_behind_a_pgbouncer(ledger_url: str):
    ledger = Ledger(f"{ledger_url}?prepare_threshold=0")
    with ledger.transaction() as tx:
        for _ in range(10):
            submit(tx, [submission()])
        assert tx.connection.exec_driver_sql("SELECT COUNT(*) FROM pg_prepared_statements").scalar_one() == 0
        assert tx.connection.exec_driver_sql("SHOW enable_hashjoin").scalar_one() == "off"
    with ledger.reading() as connection:
        assert connection.exec_driver_sql("SHOW enable_hashjoin").scalar_one() == "on"
    assert counted(ledger) == {("queued", "default", "add"): 10}
    ledger.close()


def test_a_commit_that_is_not_answered_is_not_called_refused(hurt: Ledger, monkeypatch: pytest.MonkeyPatch):
    """The server commits, and the connection is gone before it says so."""
    commit = RootTransaction.commit

    def lose(begun: RootTransaction) -> None:
        driver = begun.connection.connection.driver_connection
        commit(begun)
        driver.close()
        driver.execute("SELECT 1")  # raises what a lost connection raises

    monkeypatch.setattr(RootTransaction, "commit", lose)
    with pytest.raises(LedgerUncertain, match="same Idempotency-Key"):
        accept(hurt, id="perhaps")
    monkeypatch.undo()
    assert accept(hurt, id="perhaps") == "perhaps"

    assert select(hurt, "SELECT id FROM jobs") == [("perhaps",)]


@on_postgres
def test_a_page_sees_one_moment_though_jobs_move_meanwhile(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    """A job that is claimed between the look at the counts and the look at the jobs is still there."""
    id = accept(ledger)
    counted = pages.all_counts

    def counts_then_move(connection):
        found = counted(connection)
        ledger.do(claim, ClaimRequest("w1", ("default",), '["add"]', 1))
        return found

    monkeypatch.setattr(pages, "all_counts", counts_then_move)
    found, _ = read.page(ledger, SYSTEM, Filter(tasks=("add",)), None, 10)

    assert [job.id for job in found] == [id]
