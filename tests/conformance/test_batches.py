"""Batches: all jobs of one or none, under one id, and told how far they are together."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from celeriac.access import Principal, Role
from celeriac.access.principals import PERMISSIONS
from celeriac.errors import BatchNotFound, IdempotencyMismatch, JobExists
from celeriac.jobs import Unique, new_id
from celeriac.ledger import Ledger, batches, submit
from celeriac.ledger.batches import BatchReceipt, BatchSubmission
from conformance.moves import accept, begin, counted, end, look, select, submission, success, take

ANN = Principal("ann", PERMISSIONS[Role.SUBMITTER])


def asked(*changes: dict[str, Any], **fields: Any) -> BatchSubmission:
    """A batch of Ann's with one job for each dict of changes."""
    id = new_id()
    return BatchSubmission(id, "ann", tuple(submission(batch=id, **one) for one in changes), **fields)


def test_the_jobs_of_a_batch_carry_its_id_and_stand_in_its_order(ledger: Ledger):
    batch = asked({}, {"queue": "big"}, {})
    receipt: BatchReceipt = ledger.do(batches.submit_batch, batch)

    assert [one.id for one in receipt.receipts] == [one.id for one in batch.submissions]
    assert [job.id for job in batches.jobs_of(ledger, ANN, batch.id)] == [one.id for one in batch.submissions]
    assert {look(ledger, one.id).batch for one in receipt.receipts} == {batch.id}
    assert counted(ledger) == {("queued", "default", "add"): 2, ("queued", "big", "add"): 1}


def test_a_batch_tells_how_far_it_is(ledger: Ledger):
    id = ledger.do(batches.submit_batch, asked({}, {}, {}, {})).id
    assert batches.batch(ledger, ANN, id).counts == {"queued": 4}

    first, second = take(ledger, 2)
    begin(ledger, first)
    end(ledger, success(first))
    seen = batches.batch(ledger, ANN, id)

    assert (seen.size, seen.done, seen.counts) == (4, 1, {"queued": 2, "running": 1, "succeeded": 1})
    assert second.attempt == 1


def test_jobs_that_were_pruned_count_as_done(ledger: Ledger):
    id = ledger.do(batches.submit_batch, asked({}, {})).id
    [job] = take(ledger)
    begin(ledger, job)
    end(ledger, success(job))
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM jobs WHERE state = 'succeeded'")

    assert batches.batch(ledger, ANN, id).done == 1


@pytest.mark.parametrize("role", [Role.SUBMITTER, None])
def test_a_batch_shows_to_its_owner_and_who_may_read_all_only(ledger: Ledger, role: Role | None):
    id = ledger.do(batches.submit_batch, asked({})).id
    bob = Principal("bob", PERMISSIONS[role] if role else frozenset())

    with pytest.raises(BatchNotFound):
        batches.batch(ledger, bob, id)
    with pytest.raises(BatchNotFound):
        batches.batch(ledger, ANN, "nothing")
    assert batches.batch(ledger, Principal("eve", PERMISSIONS[Role.VIEWER]), id).owner == "ann"


@pytest.mark.parametrize("key", [{}, {"idempotency_key": "k", "fingerprint": "f"}])
def test_a_batch_repeated_because_its_answer_was_lost_is_there_once(ledger: Ledger, key):
    batch = asked({}, {"queue": "big"}, **key)
    first = ledger.do(batches.submit_batch, batch)
    again = ledger.do(batches.submit_batch, batch)

    assert [one.id for one in again.receipts] == [one.id for one in first.receipts]
    assert batches.batch(ledger, ANN, batch.id).size == 2
    assert counted(ledger) == {("queued", "default", "add"): 1, ("queued", "big", "add"): 1}


def test_a_batch_with_an_id_that_is_taken_leaves_nothing(ledger: Ledger):
    taken = accept(ledger)

    with pytest.raises(JobExists):
        ledger.do(batches.submit_batch, asked({}, {"id": taken}, {}))

    assert counted(ledger) == {("queued", "default", "add"): 1}
    assert select(ledger, "SELECT id FROM batches") == []


def test_a_unique_job_that_is_there_is_answered_and_not_counted(ledger: Ledger):
    there = accept(ledger, unique=Unique("k"))
    receipt = ledger.do(batches.submit_batch, asked({"unique": Unique("k")}, {}, {"unique": Unique("k")}))

    assert [one.id == there for one in receipt.receipts] == [True, False, True]
    assert [one.duplicate for one in receipt.receipts] == [True, False, True]
    assert batches.batch(ledger, ANN, receipt.id).size == 1


def test_a_known_key_answers_the_same_batch(ledger: Ledger):
    batch = asked({}, {}, idempotency_key="k", fingerprint="f")
    again = asked({}, {}, idempotency_key="k", fingerprint="f")
    first = ledger.do(batches.submit_batch, batch)

    assert ledger.do(batches.submit_batch, again) == BatchReceipt(first.id, replayed=True)
    with pytest.raises(IdempotencyMismatch):
        ledger.do(batches.submit_batch, replace(again, fingerprint="g"))
    assert counted(ledger) == {("queued", "default", "add"): 2}


def test_a_key_of_a_batch_is_none_of_a_job(ledger: Ledger):
    ledger.do(batches.submit_batch, asked({}, idempotency_key="k", fingerprint="f"))

    assert not ledger.do(submit, submission(idempotency_key="k", fingerprint="f")).replayed


def test_a_key_given_twice_at_once_makes_one_batch(ledger: Ledger):
    pair = [asked({}, {}, idempotency_key="k", fingerprint="f") for _ in range(2)]
    with ledger.transaction() as tx:
        first, second = batches.submit_batch(tx, pair)

    assert (first.replayed, second) == (False, BatchReceipt(first.id, replayed=True))


def test_a_key_used_by_many_at_the_same_instant_makes_one_batch(ledger: Ledger, ledger_url: str):
    ledgers = [Ledger(ledger_url) for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda place: ledgers[place % 4].do(
                    batches.submit_batch, asked({}, {}, idempotency_key="k", fingerprint="f")
                ),
                range(16),
            )
        )
    for opened in ledgers:
        opened.close()

    assert len({answer.id for answer in answers}) == 1
    assert counted(ledger) == {("queued", "default", "add"): 2}


def test_a_key_whose_batch_was_pruned_makes_a_new_one(ledger: Ledger):
    gone = ledger.do(batches.submit_batch, asked({}, idempotency_key="k", fingerprint="f"))
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM batches")

    fresh = ledger.do(batches.submit_batch, asked({}, idempotency_key="k", fingerprint="g"))
    again = ledger.do(batches.submit_batch, asked({}, idempotency_key="k", fingerprint="g"))
    assert (fresh.id != gone.id, again) == (True, BatchReceipt(fresh.id, replayed=True))
