"""Submits in a caller's own transaction: they live or die with it, on sqlite3 and on psycopg."""

import sqlite3
from typing import Any

import psycopg
import pytest
from oracle import violations
from psycopg.rows import dict_row
from sqlalchemy import create_engine

from celeriac.errors import CeleriacError, JobExists
from celeriac.ledger import Ledger, submit
from conformance.moves import accept, counted, kinds, select, submission


def connection_to(ledger: Ledger) -> Any:
    """A connection of the caller's own, as a program that knows nothing of us would open it."""
    if ledger.dialect == "sqlite":
        return sqlite3.connect(ledger.url.removeprefix("sqlite:///"))
    return psycopg.connect(ledger.url.replace("+psycopg", ""))


@pytest.fixture
def own(ledger: Ledger):
    connection = connection_to(ledger)
    connection.execute("CREATE TABLE orders (id text)")
    connection.commit()
    yield connection
    connection.rollback()
    connection.execute("DROP TABLE orders")
    connection.commit()
    connection.close()


def orders(ledger: Ledger) -> list:
    return select(ledger, "SELECT id FROM orders")


def test_a_job_is_accepted_with_the_callers_commit(ledger: Ledger, own: Any):
    own.execute("INSERT INTO orders (id) VALUES ('one')")
    with ledger.joining(own):
        receipt = ledger.do(submit, submission(tags=("paid",)))
    assert select(ledger, "SELECT id FROM jobs") == []

    own.commit()

    assert orders(ledger) == [("one",)]
    assert kinds(ledger, receipt.id) == ["submitted"]
    assert counted(ledger) == {("queued", "default", "add"): 1}
    assert violations(ledger, ended=False) == []


def test_a_job_dies_with_the_callers_rollback(ledger: Ledger, own: Any):
    own.execute("INSERT INTO orders (id) VALUES ('one')")
    with ledger.joining(own):
        ledger.do(submit, submission(idempotency_key="k", fingerprint="f"))

    own.rollback()

    assert (orders(ledger), select(ledger, "SELECT id FROM jobs")) == ([], [])
    assert select(ledger, "SELECT * FROM events") == select(ledger, "SELECT * FROM idempotency") == []
    assert counted(ledger) == {}


def test_what_is_submitted_after_the_block_is_committed_by_itself(ledger: Ledger, own: Any):
    with ledger.joining(own):
        ledger.do(submit, submission(id="inside"))
    own.rollback()

    accept(ledger, id="outside")

    assert select(ledger, "SELECT id FROM jobs") == [("outside",)]


def test_a_refused_submit_is_an_error_and_the_callers_transaction_goes_on(ledger: Ledger, own: Any):
    accept(ledger, id="taken")

    with ledger.joining(own), pytest.raises(JobExists):
        ledger.do(submit, submission(id="taken", task="other"))
    own.execute("INSERT INTO orders (id) VALUES ('two')")
    own.commit()

    assert orders(ledger) == [("two",)]
    assert violations(ledger, ended=False) == []


def test_an_error_in_the_block_leaves_nothing_half_written_whatever_the_caller_does(ledger: Ledger, own: Any):
    def fail() -> None:
        with ledger.joining(own):
            ledger.do(submit, submission(id="whole"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    own.commit()

    assert kinds(ledger, "whole") == ["submitted"]
    assert violations(ledger, ended=False) == []


def test_a_connection_in_autocommit_is_refused_unless_a_transaction_was_begun(ledger: Ledger, own: Any):
    if ledger.dialect == "sqlite":
        own.isolation_level = None
    else:
        own.autocommit = True

    with ledger.joining(own), pytest.raises(CeleriacError, match="Begin a transaction"):
        ledger.do(submit, submission())
    own.execute("BEGIN")
    with ledger.joining(own):
        ledger.do(submit, submission(id="begun"))
    own.execute("ROLLBACK")

    assert select(ledger, "SELECT id FROM jobs") == []


def test_rows_of_the_callers_making_do_not_disturb(ledger: Ledger, own: Any):
    own.row_factory = sqlite3.Row if ledger.dialect == "sqlite" else dict_row

    with ledger.joining(own):
        receipt = ledger.do(submit, submission())
    own.commit()

    assert kinds(ledger, receipt.id) == ["submitted"]


def test_a_connection_of_sqlalchemy_may_be_joined(ledger: Ledger):
    engine = create_engine(ledger.url)
    with engine.begin() as connection, ledger.joining(connection):
        receipt = ledger.do(submit, submission())
    engine.dispose()

    assert kinds(ledger, receipt.id) == ["submitted"]


def test_a_connection_to_something_else_is_refused(ledger: Ledger):
    with pytest.raises(TypeError, match="is not a connection to the ledger's database"), ledger.joining(object()):
        pass
