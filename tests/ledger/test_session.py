"""Many rows at once, and statements through libpq itself: nothing is cut, lost or prepared twice."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress

import postgres
import pytest
from conformance.moves import MESSAGE, accept, select, submission
from databases import on_postgres
from instance import interrupted, until
from proxy import proxy

from celeriac.errors import JobExists, LedgerUnavailable, LedgerUncertain
from celeriac.jobs import ClaimRequest, Message, Receipt, Submission
from celeriac.ledger import Ledger, Transaction, claim, submit
from celeriac.ledger.moves import claim as claiming
from celeriac.ledger.moves import finish
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import LOAD_MIN

ODD = "a\tb\r\nc\n\\.\n\\N \x01\x01 \x02 \"quoted\" 'too' , \u2028 é € 🥬\n"
OWN = "SELECT COUNT(*) FROM pg_prepared_statements WHERE name LIKE 'celeriac%'"


def many(**values: object) -> list[Submission]:
    return [submission(**values) for _ in range(LOAD_MIN + 5)]


def test_text_in_a_large_batch_comes_back_as_it_was(ledger: Ledger):
    odd = submission(message=Message(ODD, ODD, ODD), args=ODD, tags=("x",), queue=ODD, priority=-3, cost=2**40)
    plain = many()
    with ledger.transaction() as tx:
        submit(tx, [*plain, odd])

    columns = "headers, properties, body, args, queue, priority, cost, tags, rerun"
    [found] = select(ledger, f"SELECT {columns} FROM jobs JOIN payloads ON job = key WHERE id = '{odd.id}'")
    assert found == (ODD, ODD, ODD, ODD, ODD, -3, 2**40, '["x"]', 1)
    rest = select(ledger, "SELECT DISTINCT body, cost, expires_at, number FROM jobs JOIN payloads ON job = key WHERE"
                  f" id <> '{odd.id}'")  # fmt: skip
    assert rest == [(MESSAGE.body, None, None, 1)]


def test_jobs_of_a_large_batch_stand_in_its_order(ledger: Ledger):
    batch = many()
    with ledger.transaction() as tx:
        receipts = submit(tx, batch)

    keys = dict(select(ledger, "SELECT id, key FROM jobs"))
    assert [receipt.key for receipt in receipts] == [keys[one.id] for one in batch] == sorted(keys.values())
    assert select(ledger, "SELECT COUNT(*) FROM events JOIN payloads ON payloads.job = events.job") == [(len(batch),)]


def test_ids_that_are_taken_do_not_spoil_a_large_batch(ledger: Ledger):
    taken = accept(ledger)
    batch = [*many(), submission(id=taken, task="mul"), submission(id="twice"), submission(id="twice", task="mul")]
    with ledger.transaction() as tx:
        answers = submit(tx, batch)

    kinds = [type(answer) for answer in answers]
    assert kinds == [Receipt] * (LOAD_MIN + 5) + [JobExists, Receipt, JobExists]
    assert select(ledger, "SELECT COUNT(*), COUNT(DISTINCT id) FROM jobs") == [(LOAD_MIN + 7, LOAD_MIN + 7)]


@pytest.mark.parametrize("what", ["queue", "args"])
@on_postgres
def test_a_text_with_nul_in_a_large_batch_spoils_it_rather_than_being_cut(ledger: Ledger, what: str):
    with pytest.raises(Exception, match="0x00"), ledger.transaction() as tx:
        submit(tx, [*many(), submission(**{what: "a\0b"})])

    assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(0,)]


@on_postgres
def test_a_parameter_with_nul_is_refused_rather_than_cut(ledger: Ledger):
    accept(ledger)
    with pytest.raises(Exception, match="NUL"):
        ledger.do(claim, ClaimRequest("w1", ("default\0",), '["add"]', 1))


@on_postgres
def test_statements_stay_prepared_when_a_transaction_fails(ledger: Ledger):
    accept(ledger)
    with ledger.transaction() as tx:
        tx.run(Sql("SELECT CAST(:none AS int) AS none"), none=1)
        before = tx.run(Sql(OWN)).first().count
    for _ in range(3):
        with pytest.raises(Exception, match="by zero"), ledger.transaction() as tx:
            tx.run(Sql("SELECT 1 / CAST(:none AS int) AS much"), none=0)
        with ledger.reading(whole=True) as connection:
            for _ in range(5):  # until the driver has prepared something of its own
                connection.exec_driver_sql("SELECT 1")
    accept(ledger)

    with ledger.transaction() as tx:
        assert tx.run(Sql(OWN)).first().count == before + 1 > 1


@on_postgres
def test_statements_that_somebody_dropped_are_prepared_again(ledger: Ledger):
    accept(ledger)
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("DEALLOCATE ALL")

    accept(ledger, id="again")
    assert select(ledger, "SELECT id FROM jobs WHERE id = 'again'") == [("again",)]


@on_postgres
def test_numbers_keep_what_they_are(ledger: Ledger):
    with ledger.transaction() as tx:
        found = tx.run(Sql("SELECT :whole + 1 AS whole, :part * 2 AS part, :no AS no, CAST(:text AS text) AS text"),
                       whole=2**53, part=0.1, no=None, text="7").first()  # fmt: skip
    assert (found.whole, found.part, found.no, found.text) == (2**53 + 1, 0.2, None, "7")


def plan(ledger: Ledger, statement: Sql, without: str = "", **values: object) -> str:
    """How Postgres would execute a statement, whatever its values; `without` these indexes, if they were not there."""
    text, names = statement.numbered
    types = ", ".join("bigint" if isinstance(values[name], int) else "text" for name in names)
    told = ", ".join(f"'{values[name]}'" for name in names)
    with suppress(_RollBack), ledger.transaction() as tx:
        run = tx.connection.exec_driver_sql
        run("SET LOCAL plan_cache_mode = force_generic_plan")
        if without:
            run(f"DROP INDEX {without}")
        run(f"PREPARE it({types}) AS {text}")
        lines = [line for (line,) in run(f"EXPLAIN EXECUTE it({told})")]
        run("DEALLOCATE it")
        raise _RollBack
    return "\n".join(lines)


class _RollBack(Exception):
    pass


@on_postgres
def test_a_finish_finds_its_jobs_by_their_keys(ledger: Ledger):
    """By the index of what runs it would read all that ran since that was last cleaned, with every commit."""
    told = plan(ledger, finish._HELD, rows="[]")

    assert "jobs_pkey" in told
    assert "jobs_running" not in told


@on_postgres
def test_a_claim_never_looks_for_what_waits_in_the_order_of_all_keys(ledger: Ledger):
    """It would walk past each job that has ended to the first that waits."""
    values = {"rows": "[]", "worker": "w", "queue": "q", "now": 1, "most": 1}
    told = plan(ledger, claiming._CLAIM, **values)
    assert "jobs_waiting" in told
    assert "jobs_pkey on jobs n" not in told

    told = plan(ledger, claiming._CLAIM, "jobs_waiting, jobs_kind, jobs_owner", **values)
    assert "Sort Key: n.owner" in told  # even where there is nothing better, that order is of no use


# What is put off until the next statement

_PAUSE = Sql("INSERT INTO queues (name, paused_at) VALUES (:name, :at)")
_MOVE = Sql("UPDATE queues SET paused_at = paused_at + :more WHERE name = :name")
_SLEEP = Sql("SELECT pg_sleep(CAST(:seconds AS float))")
_PID = Sql("SELECT pg_backend_pid() AS pid")
PAUSED = "SELECT name, paused_at FROM queues ORDER BY name"


def pause_and(ledger: Ledger, what: Callable[[Transaction], object]) -> None:
    """A write that is put off, something, and another such write."""
    with ledger.transaction() as tx:
        tx.write(_PAUSE, name="a", at=1)
        what(tx)
        tx.write(_PAUSE, name="b", at=1)


def test_what_is_put_off_is_done_in_its_order(ledger: Ledger):
    with ledger.transaction() as tx:
        tx.write(_PAUSE, name="a", at=1)
        tx.write(_MOVE, name="a", more=2)
        assert tx.run(Sql(PAUSED)).all() == [("a", 3)]
        tx.write(_PAUSE, name="b", at=1)
        tx.write(_MOVE, name="a", more=4)

    assert select(ledger, PAUSED) == [("a", 7), ("b", 1)]


def test_what_is_larger_than_any_buffer_goes_with_what_was_put_off(ledger: Ledger):
    """The server reads no more for a while, and says nothing: it must be sent the rest all the same."""
    large = "a letter " * 3_000_000
    with ledger.transaction() as tx:
        tx.write(_PAUSE, name="a", at=1)
        assert tx.run(Sql("SELECT LENGTH(CAST(:text AS text)) AS much"), text=large).first().much == len(large)
        tx.write(Sql("INSERT INTO mail (queue, message, at) VALUES ('a', :text, 1)"), text=large)
        tx.write(_PAUSE, name="b", at=1)

    assert select(ledger, "SELECT LENGTH(message) FROM mail") == [(len(large),)]
    assert select(ledger, PAUSED) == [("a", 1), ("b", 1)]


def test_nothing_that_is_put_off_outlives_its_transaction(ledger: Ledger):
    with suppress(_RollBack), ledger.transaction() as tx:
        tx.write(_PAUSE, name="a", at=1)
        raise _RollBack
    with ledger.transaction():
        pass
    accept(ledger)

    assert select(ledger, PAUSED) == []


@on_postgres
def test_what_is_wrong_with_what_was_put_off_is_raised_by_the_commit_and_costs_no_connection(ledger: Ledger):
    with ledger.transaction() as tx:
        before = tx.run(_PID).first().pid
    with pytest.raises(Exception, match="by zero"):
        pause_and(ledger, lambda tx: tx.write(Sql("SELECT 1 / CAST(:none AS int) AS much"), none=0))

    assert select(ledger, PAUSED) == []
    with ledger.transaction() as tx:
        assert tx.run(_PID).first().pid == before


@on_postgres
def test_a_signal_while_the_server_is_waited_for_leaves_no_answer_to_the_next(ledger: Ledger):
    with interrupted(0.3):
        pause_and(ledger, lambda tx: tx.run(_SLEEP, seconds=20.0))

    accept(ledger)
    assert select(ledger, PAUSED) == []


@on_postgres
def test_a_server_that_ends_the_connection_in_the_midst_of_several_statements_is_an_outage(ledger: Ledger):
    def end() -> None:
        with ledger.reading() as other:
            ask = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with(query, 'SELECT pg_sleep(')"
            until(lambda: any(other.exec_driver_sql(ask).scalars()), "it to sleep")

    killer = threading.Thread(target=end)
    killer.start()
    with pytest.raises(LedgerUnavailable):
        pause_and(ledger, lambda tx: tx.run(_SLEEP, seconds=20.0))
    killer.join()

    accept(ledger)
    assert select(ledger, PAUSED) == []


@pytest.fixture
def way(ledger_url: str):
    """A way to the server that can be cut, and a ledger at its end."""
    with proxy(postgres.server().port) as made, closing(Ledger(made.before(ledger_url))) as opened:
        yield made, opened


def _submit(ledger: Ledger, before=lambda: None, after=lambda: None) -> None:
    with ledger.transaction() as tx:
        before()
        submit(tx, [submission()])
        tx.flush()
        after()


@on_postgres
def test_a_connection_that_ends_without_a_word_is_an_outage_and_no_fault_of_a_move(way):
    cut, ledger = way
    with pytest.raises(LedgerUnavailable):
        _submit(ledger, before=cut.reset)

    _submit(ledger)


@on_postgres
def test_a_commit_whose_connection_ends_without_a_word_is_of_unknown_outcome(way):
    cut, ledger = way
    with pytest.raises(LedgerUncertain):
        _submit(ledger, after=cut.reset)
