"""What attempts say of themselves, and results that are forgotten."""

import json

from celeriac import clock
from celeriac.jobs import Remark
from celeriac.ledger import Ledger, forget, remark
from conformance.moves import accept, begin, end, failure, kinds, look, success, take_one


def said(claim, state: str, meta: object) -> Remark:
    return Remark(claim.key, claim.attempt, clock.micros(), state, json.dumps(meta))


def test_the_last_state_a_task_gave_itself_is_kept_with_its_attempt(ledger: Ledger):
    id = accept(ledger)
    claim = take_one(ledger)
    begin(ledger, claim)
    with ledger.transaction() as tx:
        assert remark(tx, [said(claim, "LOADING", 1), said(claim, "SORTING", {"rows": [1, "x"]})]) == [True, True]

    job = look(ledger, id)
    assert (job.celery_state, json.loads(job.celery_meta)) == ("SORTING", {"attempt": 1, "meta": {"rows": [1, "x"]}})
    assert kinds(ledger, id)[-2:] == ["message", "message"]


def test_a_state_that_looks_like_progress_is_progress(ledger: Ledger):
    id = accept(ledger)
    claim = take_one(ledger)
    begin(ledger, claim)
    ledger.do(remark, said(claim, "LOADING", {"current": 3, "total": 4}))

    progress = look(ledger, id).progress
    assert (progress.value, progress.total, progress.note) == (3, 4, "LOADING")
    assert kinds(ledger, id)[-1] == "progress"


def test_an_attempt_that_has_lost_its_job_says_nothing(ledger: Ledger):
    id = accept(ledger)
    claim = take_one(ledger)
    end(ledger, success(claim))

    assert ledger.do(remark, said(claim, "LATE", None)) is False
    assert look(ledger, id).celery_state is None


def test_a_forgotten_result_is_gone_and_its_history_is_not(ledger: Ledger):
    id, failed = accept(ledger, priority=1), accept(ledger)
    end(ledger, success(take_one(ledger)))
    end(ledger, failure(take_one(ledger)))
    with ledger.transaction() as tx:
        forget(tx, [id, failed, "unknown"])

    job = look(ledger, id)
    assert (job.state, job.result, job.celery_state) == ("succeeded", None, "FORGOTTEN")
    assert look(ledger, failed).failure.traceback is None
    assert kinds(ledger, id)[-1] == "succeeded"


def test_a_running_job_has_nothing_to_forget(ledger: Ledger):
    id = accept(ledger)
    take_one(ledger)
    ledger.do(forget, id)

    assert look(ledger, id).celery_state is None
