"""Unique jobs: one key, one job at a time, whoever asks at the same instant."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from celeriac.access import SYSTEM
from celeriac.errors import JobExists, JobKeyTaken, JobNotFinal
from celeriac.jobs import Receipt, Unique
from celeriac.ledger import Asked, Ledger, reopen, submit
from celeriac.states import State
from conformance.moves import (
    accept,
    counted,
    end,
    failure,
    retry,
    running,
    select,
    submission,
    submit_all,
    success,
    take_one,
)

DAILY = Unique("daily", 0)
HOURLY = Unique("hourly", 3600)
HOURLY_DAILY = Unique("daily", 3600)


def ask(ledger: Ledger, unique: Unique = DAILY, **changes) -> Receipt:
    """Submit with a unique key."""
    return ledger.do(submit, submission(unique=unique, **changes))


def test_a_key_answers_the_job_it_stands_for(ledger: Ledger):
    first = ask(ledger)
    again = ask(ledger)

    assert (again.id, again.key, again.created_at) == (first.id, first.key, first.created_at)
    assert (first.duplicate, again.duplicate, again.replayed) == (False, True, False)
    assert counted(ledger) == {("queued", "default", "add"): 1}


def test_the_answer_says_the_state_of_now(ledger: Ledger):
    job = running(ledger, unique=DAILY)
    assert ask(ledger).state is State.RUNNING

    end(ledger, retry(job, seconds=60))
    assert ask(ledger).state is State.RETRYING


@pytest.mark.parametrize("outcome", [success, failure])
def test_a_job_that_has_ended_frees_its_key(ledger: Ledger, outcome):
    job = running(ledger, unique=DAILY)
    end(ledger, outcome(job))

    fresh = ask(ledger)
    assert (fresh.id != job.id, fresh.duplicate) == (True, False)
    assert ask(ledger).id == fresh.id


def test_within_its_window_a_key_stands_for_a_job_that_has_ended(ledger: Ledger, fake_clock):
    job = running(ledger, unique=HOURLY)
    end(ledger, success(job))

    fake_clock.advance(3599)
    assert (ask(ledger, HOURLY).id, ask(ledger, HOURLY).state) == (job.id, State.SUCCEEDED)
    fake_clock.advance(1)
    assert ask(ledger, HOURLY).id != job.id


def test_a_job_that_goes_on_after_its_window_keeps_its_key(ledger: Ledger, fake_clock):
    first = ask(ledger, HOURLY)
    fake_clock.advance(7200)

    assert ask(ledger, HOURLY).id == first.id


@pytest.mark.parametrize("other", [{"owner": "bob"}, {"task": "other"}, {"unique": Unique("weekly")}])
def test_a_key_belongs_to_its_owner_and_task(ledger: Ledger, other):
    ids = {ask(ledger).id, ledger.do(submit, submission(**{"unique": DAILY, **other})).id}

    assert len(ids) == 2


def test_a_key_given_twice_in_one_batch_makes_one_job(ledger: Ledger):
    receipts = submit_all(ledger, *(submission(unique=DAILY) for _ in range(3)), submission())

    assert [receipt.duplicate for receipt in receipts] == [False, True, True, False]
    assert len({receipt.id for receipt in receipts}) == 2
    assert counted(ledger) == {("queued", "default", "add"): 2}


def test_a_key_whose_job_was_pruned_is_free(ledger: Ledger):
    ask(ledger, HOURLY)
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("DELETE FROM jobs")
        tx.count("queued", "default", "add", -1)

    assert not ask(ledger, HOURLY).duplicate
    assert ask(ledger, HOURLY).duplicate


def test_an_idempotency_key_that_met_a_unique_job_answers_it_for_good(ledger: Ledger):
    job = running(ledger, unique=DAILY)
    asked = {"idempotency_key": "k", "fingerprint": "f"}
    first, twin = submit_all(
        ledger, submission(unique=DAILY, **asked), submission(unique=DAILY, idempotency_key="l", fingerprint="f")
    )
    end(ledger, success(job))
    again = ask(ledger, **asked)

    assert {first.id, twin.id, again.id} == {job.id}
    assert again.replayed
    assert select(ledger, "SELECT DISTINCT job FROM idempotency") == [(job.id,)]


@pytest.mark.parametrize("there", [{"tags": ("other",)}, {"owner": "bob"}, {"task": "other"}])
def test_a_refused_job_leaves_no_key_behind(ledger: Ledger, there):
    ledger.do(submit, submission(id="taken", **there))
    refused, fresh = submit_all(ledger, submission(id="taken", unique=DAILY), submission(unique=Unique("weekly")))

    assert isinstance(refused, JobExists)
    assert select(ledger, "SELECT key, job FROM unique_keys") == [("weekly", fresh.id)]
    assert not ask(ledger).duplicate


def test_a_job_refused_beside_its_namesake_takes_only_its_own_key_along(ledger: Ledger):
    first, refused = submit_all(
        ledger, submission(id="same", unique=DAILY), submission(id="same", unique=Unique("weekly"))
    )

    assert (first.id, type(refused)) == ("same", JobExists)
    assert select(ledger, "SELECT key, job FROM unique_keys") == [("daily", "same")]


def test_a_job_that_is_sent_twice_keeps_its_key(ledger: Ledger, fake_clock):
    id = accept(ledger, unique=DAILY)
    fake_clock.advance(1)
    assert accept(ledger, id=id, unique=DAILY) == id

    assert ask(ledger).id == id


def test_a_submit_repeated_with_a_key_it_had_not_leaves_none_behind(ledger: Ledger):
    plain = submission()
    ledger.do(submit, plain)

    assert ledger.do(submit, replace(plain, unique=DAILY)).replayed
    assert select(ledger, "SELECT key FROM unique_keys") == []


def test_a_key_that_points_at_somebody_elses_job_answers_nothing_of_it(ledger: Ledger):
    ask(ledger)
    theirs = accept(ledger, owner="bob")
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(f"UPDATE unique_keys SET job = '{theirs}'")

    assert not ask(ledger).duplicate


def test_a_key_outlives_the_process(ledger_url: str):
    before = Ledger(ledger_url)
    id = accept(before, unique=DAILY)
    before.close()
    after = Ledger(ledger_url)

    assert ask(after).id == id
    after.close()


@pytest.mark.parametrize("processes", [1, 5])
@pytest.mark.parametrize("before", ["nobody", "a job that has ended"])
def test_fifty_at_the_same_instant_make_one_job(ledger: Ledger, ledger_url: str, processes: int, before: str):
    if before != "nobody":
        end(ledger, success(running(ledger, unique=DAILY)))
    ledgers = [Ledger(ledger_url) for _ in range(processes)]  # each stands for a process
    ready = Barrier(50)

    def one(place: int) -> Receipt:
        ready.wait()
        return ask(ledgers[place % processes])

    with ThreadPoolExecutor(50) as pool:
        receipts = list(pool.map(one, range(50)))
    for opened in ledgers:
        opened.close()

    assert len({receipt.id for receipt in receipts}) == 1
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert counted(ledger)["queued", "default", "add"] == 1


def test_batches_with_the_same_keys_in_another_order_do_not_wait_for_each_other(ledger: Ledger, ledger_url: str):
    keys = [Unique(f"k{place}") for place in range(200)]
    other = Ledger(ledger_url)

    def many(opened: Ledger, order: list[Unique]) -> list[Receipt]:
        return submit_all(opened, *(submission(unique=unique) for unique in order))

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(many, ledger, keys)
        two = pool.submit(many, other, keys[::-1])
        receipts = [*one.result(), *two.result()]
    other.close()

    assert sum(not receipt.duplicate for receipt in receipts) == 200
    assert counted(ledger) == {("queued", "default", "add"): 200}


# A job that is opened again


def retry_by_a_person(ledger: Ledger, *ids: str) -> list[State | Exception]:
    with ledger.transaction() as tx:
        return reopen(tx, [Asked(SYSTEM, id) for id in ids])


def failed(ledger: Ledger, **changes) -> str:
    """A job with the key, which has failed."""
    job = running(ledger, unique=DAILY, **changes)
    end(ledger, failure(job))
    return job.id


def test_a_job_whose_key_another_one_has_is_not_opened_beside_it(ledger: Ledger):
    first = failed(ledger)
    second = ask(ledger).id

    with pytest.raises(JobKeyTaken, match=f"Job {first} cannot be retried, because job {second} has its unique key"):
        ledger.do(reopen, Asked(SYSTEM, first))
    assert counted(ledger) == {("failed", "default", "add"): 1, ("queued", "default", "add"): 1}


@pytest.mark.parametrize("outcome", [success, failure])
def test_it_gets_its_key_back_when_the_other_has_ended(ledger: Ledger, outcome):
    first = failed(ledger)
    second = running(ledger, unique=DAILY)
    end(ledger, outcome(second))

    assert ledger.do(reopen, Asked(SYSTEM, first)) is State.QUEUED
    assert (ask(ledger).id, ask(ledger).duplicate) == (first, True)


def test_who_loses_a_key_to_a_reopened_job_has_to_wait_in_turn(ledger: Ledger):
    first, second = failed(ledger), failed(ledger)
    retry_by_a_person(ledger, first)

    [refused] = retry_by_a_person(ledger, second)

    assert isinstance(refused, JobKeyTaken)
    assert first in str(refused)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_of_several_with_one_key_one_is_opened(ledger: Ledger, order: tuple[int, ...]):
    ids = [failed(ledger) for _ in range(3)]

    answers = retry_by_a_person(ledger, *(ids[place] for place in order))

    assert [type(answer) for answer in answers].count(JobKeyTaken) == 2
    assert counted(ledger) == {("failed", "default", "add"): 2, ("queued", "default", "add"): 1}
    assert ask(ledger).duplicate


def test_a_key_that_nobody_has_any_more_is_the_reopened_jobs_again(ledger: Ledger):
    first = failed(ledger)
    second = ask(ledger).id
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(f"DELETE FROM jobs WHERE id = '{second}'")
        tx.connection.exec_driver_sql("DELETE FROM unique_keys")
        tx.count("queued", "default", "add", -1)

    assert retry_by_a_person(ledger, first) == [State.QUEUED]
    assert ask(ledger).id == first


def test_the_window_of_the_one_in_between_is_kept(ledger: Ledger, fake_clock):
    first = failed(ledger)
    second = running(ledger, unique=HOURLY_DAILY)
    end(ledger, success(second))
    retry_by_a_person(ledger, first)
    end(ledger, success(take_one(ledger)))

    assert ask(ledger).id == first
    fake_clock.advance(3601)
    assert not ask(ledger).duplicate


def test_another_owners_key_of_the_same_name_holds_nobody_back(ledger: Ledger):
    first = failed(ledger)
    ask(ledger, owner="bob")

    assert retry_by_a_person(ledger, first) == [State.QUEUED]


def test_at_any_moment_one_job_with_a_key_is_alive_whoever_opens_and_submits(ledger: Ledger):
    first = failed(ledger)
    for _ in range(5):
        second = failed(ledger)
        start = Barrier(4)

        def act(number: int, ids: tuple[str, str] = (first, second), start: Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(JobKeyTaken, JobNotFinal):
                ask(ledger) if number > 1 else ledger.do(reopen, Asked(SYSTEM, ids[number]))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(act, range(4)))

        assert select(ledger, "SELECT COUNT(*) FROM jobs WHERE state NOT IN ('failed', 'succeeded')") == [(1,)]
        assert select(ledger, "SELECT id FROM jobs WHERE state = 'queued' AND unique_key IS NOT NULL") == []
        end(ledger, failure(take_one(ledger)))
