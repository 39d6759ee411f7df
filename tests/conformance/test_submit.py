"""Submit: what is accepted is there, once, with its first event; a known key answers the first job again."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.errors import IdempotencyMismatch, JobExists
from celeriac.jobs import Message, Receipt
from celeriac.ledger import Ledger, submit
from celeriac.states import State
from conformance.moves import (
    BOOM,
    MESSAGE,
    SECOND,
    accept,
    counted,
    end,
    kinds,
    look,
    roll_back,
    select,
    state_of,
    submission,
    submit_all,
    success,
    take,
    take_one,
)


def test_an_accepted_job_is_queued_with_its_first_event(ledger: Ledger):
    id = accept(ledger, tags=("red", "blue"), priority=3, cost=7, max_attempts=2, parent="p", root="r", group="g")

    job = look(ledger, id)
    assert job.state is State.QUEUED
    assert (job.task, job.queue, job.owner, job.priority, job.cost) == ("add", "default", "ann", 3, 7)
    assert (job.tags, job.max_attempts, job.parent, job.root, job.group) == (("red", "blue"), 2, "p", "r", "g")
    assert (job.attempt, job.number, job.finished_at, job.result, job.failure) == (0, 1, None, None, None)
    assert kinds(ledger, id) == ["submitted"]
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_the_receipt_says_what_the_ledger_holds(ledger: Ledger):
    receipt: Receipt = ledger.do(submit, submission())

    job = look(ledger, receipt.id)
    assert (receipt.key, receipt.state, receipt.created_at) == (job.key, job.state, job.created_at)
    assert not receipt.replayed


def test_a_message_is_kept_byte_for_byte(ledger: Ledger):
    message = Message('{"b": 1,  "a":"ü"}', "{ }", '[["\\u0041", 1.50, 1e400], {"é": null}, {}]')

    assert look(ledger, accept(ledger, message=message)).message == message


@pytest.mark.parametrize("id", ["x", "ü" * 100, "a'b\"c\\d%_{}", "-" * 255])
def test_an_id_is_opaque_text(ledger: Ledger, id: str):
    assert look(ledger, accept(ledger, id=id)).id == id
    assert [job.id for job in take(ledger)] == [id]


def test_a_job_for_later_is_scheduled(ledger: Ledger):
    run_at = clock.micros() + 60 * SECOND
    id = accept(ledger, run_at=run_at)

    assert (state_of(ledger, id), look(ledger, id).run_at) == (State.SCHEDULED, run_at)
    assert counted(ledger) == {("scheduled", "default", "add"): 1}


def test_a_job_for_a_moment_that_has_passed_is_queued_at_once(ledger: Ledger):
    assert state_of(ledger, accept(ledger, run_at=clock.micros() - SECOND)) is State.QUEUED


def test_an_id_that_is_taken_is_refused_and_its_job_stays(ledger: Ledger):
    id = accept(ledger)

    with pytest.raises(JobExists):
        ledger.do(submit, submission(id=id, task="other", message=Message("{}", "{}", "[]"), tags=("new",)))

    assert (look(ledger, id).task, look(ledger, id).message) == ("add", MESSAGE)
    assert select(ledger, "SELECT tag FROM tags") == []
    assert kinds(ledger, id) == ["submitted"]
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_a_submit_repeated_because_its_answer_was_lost_is_answered_with_the_first(ledger: Ledger):
    asked = submission(tags=("a",), root="r", parent="p", group="g", priority=3)
    first: Receipt = ledger.do(submit, asked)
    again: Receipt = ledger.do(submit, asked)

    assert again == replace(first, replayed=True)
    assert kinds(ledger, first.id) == ["submitted"]
    assert select(ledger, "SELECT COUNT(*) FROM payloads") == [(1,)]
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_a_repeated_submit_is_told_of_the_job_that_has_run_meanwhile(ledger: Ledger):
    asked = submission()
    ledger.do(submit, asked)
    end(ledger, success(take_one(ledger)))

    assert ledger.do(submit, asked).state is State.SUCCEEDED
    assert state_of(ledger, asked.id) is State.SUCCEEDED


def test_an_id_used_again_long_after_its_job_has_ended_is_refused_and_not_taken_for_a_repeat(
    ledger: Ledger, fake_clock
):
    asked, waits = submission(), submission(queue="other")
    ledger.do(submit, asked)
    ledger.do(submit, waits)
    end(ledger, success(take_one(ledger)))
    fake_clock.advance(3601)

    with pytest.raises(JobExists):
        ledger.do(submit, asked)
    assert ledger.do(submit, waits).replayed


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "bob"},
        {"task": "other"},
        {"message": replace(MESSAGE, body="[[1,3],{},{}]")},
        {"tags": ("a",)},
        {"parent": "p"},
        {"group": "g"},
        {"batch": "b"},
    ],
)
def test_another_job_under_an_id_that_is_taken_is_no_repeat(ledger: Ledger, other):
    asked = submission()
    ledger.do(submit, asked)

    with pytest.raises(JobExists):
        ledger.do(submit, replace(asked, **other))


def test_a_repeat_beside_another_job_under_its_id_is_told_apart(ledger: Ledger):
    asked = submission()
    ledger.do(submit, asked)

    answers = submit_all(ledger, replace(asked, task="other"), asked)
    assert [type(answer) for answer in answers] == [JobExists, Receipt]


def test_an_id_given_twice_in_one_batch_is_accepted_once(ledger: Ledger):
    first, second = submit_all(ledger, submission(id="same", tags=("a",)), submission(id="same", tags=("b",)))

    assert isinstance(first, Receipt)
    assert isinstance(second, JobExists)
    assert look(ledger, "same").tags == ("a",)
    assert kinds(ledger, "same") == ["submitted"]
    counted(ledger)


def test_a_refused_submission_leaves_the_others_of_its_batch_alone(ledger: Ledger):
    taken = accept(ledger)

    answers = submit_all(ledger, submission(id="one"), submission(id=taken, task="mul"), submission(id="two"))

    assert [type(answer) for answer in answers] == [Receipt, JobExists, Receipt]
    assert [kinds(ledger, id) for id in ("one", "two")] == [["submitted"], ["submitted"]]
    assert counted(ledger) == {("queued", "default", "add"): 3}


def test_a_frozen_id_that_exists_already_is_no_error_and_changes_nothing(ledger: Ledger):
    id = accept(ledger)

    receipt = ledger.do(submit, submission(id=id, queue="other", existing_ok=True))

    assert receipt.id == id
    assert look(ledger, id).queue == "default"
    assert kinds(ledger, id) == ["submitted"]
    counted(ledger)


def test_jobs_of_one_batch_stand_in_its_order(ledger: Ledger):
    ids = [f"job-{place}" for place in range(20)]
    submit_all(ledger, *(submission(id=id) for id in ids))

    assert [job.id for job in take(ledger, 20)] == ids


def test_a_job_recorded_as_failed_never_runs(ledger: Ledger):
    id = accept(ledger, failure=BOOM)

    job = look(ledger, id)
    assert (job.state, job.failure) == (State.FAILED, BOOM)
    assert job.finished_at == job.created_at
    assert kinds(ledger, id) == ["submitted", "failed"]
    assert take(ledger) == []
    assert counted(ledger) == {("failed", "default", "add"): 1}


def test_a_known_key_answers_the_first_job_again(ledger: Ledger):
    first = ledger.do(submit, submission(idempotency_key="k", fingerprint="f"))
    again = ledger.do(submit, submission(idempotency_key="k", fingerprint="f"))

    assert (again.id, again.key, again.created_at, again.replayed) == (first.id, first.key, first.created_at, True)
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_a_replayed_receipt_says_the_state_of_now(ledger: Ledger):
    ledger.do(submit, submission(idempotency_key="k", fingerprint="f"))
    take(ledger)

    assert ledger.do(submit, submission(idempotency_key="k", fingerprint="f")).state is State.RUNNING


def test_a_key_given_twice_in_one_batch_makes_one_job(ledger: Ledger):
    first, second, third = submit_all(
        ledger, *(submission(idempotency_key="k", fingerprint="f") for _ in range(3))
    )  # fmt: skip

    assert (first.replayed, second.replayed, third.replayed) == (False, True, True)
    assert {first.id, second.id, third.id} == {first.id}
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_a_key_belongs_to_its_owner(ledger: Ledger):
    receipts = submit_all(
        ledger,
        submission(owner="ann", idempotency_key="k", fingerprint="f"),
        submission(owner="bob", idempotency_key="k", fingerprint="g"),
    )
    later = ledger.do(submit, submission(owner="carl", idempotency_key="k", fingerprint="h"))

    assert len({receipt.id for receipt in [*receipts, later]}) == 3
    assert not any(receipt.replayed for receipt in [*receipts, later])


def test_a_key_with_another_body_is_refused(ledger: Ledger):
    accept(ledger, idempotency_key="k", fingerprint="f")

    with pytest.raises(IdempotencyMismatch):
        ledger.do(submit, submission(idempotency_key="k", fingerprint="g"))
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_a_key_with_another_body_in_the_same_batch_is_refused(ledger: Ledger):
    first, second = submit_all(
        ledger,
        submission(idempotency_key="k", fingerprint="f"),
        submission(idempotency_key="k", fingerprint="g"),
    )

    assert isinstance(first, Receipt)
    assert isinstance(second, IdempotencyMismatch)


def test_a_wrong_body_does_not_spoil_the_right_one_behind_it(ledger: Ledger):
    first = ledger.do(submit, submission(idempotency_key="k", fingerprint="f"))

    wrong, right = submit_all(
        ledger,
        submission(idempotency_key="k", fingerprint="g"),
        submission(idempotency_key="k", fingerprint="f"),
    )

    assert isinstance(wrong, IdempotencyMismatch)
    assert isinstance(right, Receipt)
    assert (right.id, right.replayed) == (first.id, True)


def test_a_key_whose_job_is_gone_makes_one_new_job(ledger: Ledger):
    gone = accept(ledger, idempotency_key="k", fingerprint="f")
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM jobs")
        tx.count("queued", "default", "add", -1)

    first = ledger.do(submit, submission(idempotency_key="k", fingerprint="g"))
    again = ledger.do(submit, submission(idempotency_key="k", fingerprint="g"))

    assert first.id != gone
    assert (again.id, again.replayed) == (first.id, True)
    counted(ledger)


def test_an_empty_batch_is_accepted(ledger: Ledger):
    assert submit_all(ledger) == []


def test_a_transaction_that_fails_leaves_nothing_and_tells_nobody(ledger: Ledger):
    told = []
    ledger.announce = told.append

    roll_back(ledger, submit, submission(tags=("red",), idempotency_key="k", fingerprint="f"))

    assert told == []
    tables = ("jobs", "payloads", "events", "tags", "idempotency", "count_deltas")
    assert [select(ledger, f"SELECT * FROM {table}") for table in tables] == [[]] * len(tables)


def test_a_commit_tells_which_queues_got_work_and_what_waits_until_when(ledger: Ledger):
    told = []
    ledger.announce = told.append
    soon, later = clock.micros() + SECOND, clock.micros() + 9 * SECOND

    submit_all(ledger, submission(), submission(queue="big"), submission(run_at=later, queue="none"))
    submit_all(ledger, submission(run_at=later), submission(expires_at=soon))

    assert [(set(tx.wakes), tx.due_at) for tx in told] == [({"default", "big"}, later), ({"default"}, soon)]
