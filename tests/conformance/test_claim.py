"""Claim: the best jobs of a queue, each to one worker, and nothing that may not run."""

import threading

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.ledger import Asked, Ledger, cancel, read
from celeriac.states import State
from conformance.moves import (
    MESSAGE,
    SECOND,
    accept,
    begin,
    counted,
    end,
    given_back,
    kinds,
    look,
    select,
    state_of,
    submission,
    submit_all,
    success,
    take,
    take_one,
)


def test_a_claimed_job_runs_in_the_hands_of_its_worker(ledger: Ledger):
    id = accept(ledger)

    job = take_one(ledger)

    assert (job.id, job.task, job.queue, job.owner, job.attempt, job.deaths) == (id, "add", "default", "ann", 1, 0)
    assert job.message == MESSAGE
    assert (look(ledger, id).state, look(ledger, id).worker, look(ledger, id).started_at) == (
        State.RUNNING,
        "w1@host/1",
        None,
    )
    assert kinds(ledger, id) == ["submitted", "claimed"]
    assert counted(ledger) == {("running", "default", "add"): 1}


def test_the_event_of_a_claim_names_worker_and_attempt(ledger: Ledger):
    id = accept(ledger)
    take(ledger)

    assert read.history(ledger, SYSTEM, id, 1, 10)[0].data == '{"worker":"w1@host/1","attempt":1}'


def test_a_cancelled_job_is_never_claimed(ledger: Ledger):
    id = accept(ledger)
    ledger.do(cancel, Asked(SYSTEM, id))

    assert take(ledger, 10) == []
    assert state_of(ledger, id) is State.CANCELLED


def test_a_claimed_job_is_not_claimed_again(ledger: Ledger):
    accept(ledger)

    assert len(take(ledger, 10)) == 1
    assert take(ledger, 10, worker="w2") == []


def test_a_finished_job_is_not_claimed_again(ledger: Ledger):
    accept(ledger)
    end(ledger, success(take_one(ledger)))

    assert take(ledger, 10) == []


def test_a_job_is_not_claimed_before_its_time(ledger: Ledger):
    accept(ledger, run_at=clock.micros() + 60 * SECOND)

    assert take(ledger, 10) == []


def test_an_expired_job_is_not_claimed(ledger: Ledger, fake_clock):
    accept(ledger, expires_at=clock.micros() + SECOND)
    fresh = accept(ledger, expires_at=clock.micros() + 2 * SECOND)
    fake_clock.advance(1)

    assert [job.id for job in take(ledger, 10)] == [fresh]


def test_higher_priority_comes_first_then_age(ledger: Ledger):
    for name, priority in {"a": 0, "b": 5, "c": -3, "d": 5, "e": 0}.items():
        accept(ledger, id=name, priority=priority)

    assert [job.id for job in take(ledger, 2)] == ["b", "d"]
    assert [job.id for job in take(ledger, 10)] == ["a", "e", "c"]


def test_a_claim_takes_no_more_than_its_limit_over_all_queues(ledger: Ledger):
    submit_all(ledger, *(submission(queue=queue) for queue in ("one", "two", "one", "two", "one")))

    assert [job.queue for job in take(ledger, 4, queues=("two", "one"))] == ["two", "two", "one", "one"]
    assert take(ledger, 0, queues=("one",)) == []
    assert len(take(ledger, 10, queues=("one", "two"))) == 1


def test_a_queue_that_is_not_asked_for_is_left_alone(ledger: Ledger):
    id = accept(ledger, queue="other")

    assert take(ledger, 10) == []
    assert state_of(ledger, id) is State.QUEUED


def test_a_task_that_the_worker_does_not_know_is_left_alone(ledger: Ledger):
    unknown = accept(ledger, task="later-release", priority=9)
    known = accept(ledger)

    assert [job.id for job in take(ledger, 10)] == [known]
    assert (state_of(ledger, unknown), kinds(ledger, unknown)) == (State.QUEUED, ["submitted"])
    assert [job.id for job in take(ledger, 10, tasks=("later-release",))] == [unknown]


def test_a_paused_queue_gives_nothing_until_it_is_resumed(ledger: Ledger):
    id = accept(ledger)
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("INSERT INTO queues (name, paused_at) VALUES ('default', 1)")
    other = accept(ledger, queue="other")

    assert [job.id for job in take(ledger, 10, queues=("default", "other"))] == [other]

    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("UPDATE queues SET paused_at = NULL")
    assert [job.id for job in take(ledger, 10)] == [id]


def test_each_claim_raises_the_attempt(ledger: Ledger):
    id = accept(ledger)
    attempts = []
    for _ in range(3):
        job = take_one(ledger)
        attempts.append(job.attempt)
        end(ledger, given_back(job))

    assert attempts == [1, 2, 3]
    assert kinds(ledger, id) == ["submitted", *["claimed", "given-back"] * 3]


def test_a_claim_of_nothing_writes_nothing(ledger: Ledger):
    assert take(ledger, 10) == []
    assert select(ledger, "SELECT COUNT(*) FROM events") == [(0,)]
    assert counted(ledger) == {}


def test_many_workers_share_nothing(ledger: Ledger):
    submit_all(ledger, *(submission() for _ in range(60)))
    taken: dict[str, list[str]] = {}

    def work(worker: str) -> None:
        while jobs := take(ledger, 4, worker=worker):
            taken.setdefault(worker, []).extend(job.id for job in jobs)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = [id for ids in taken.values() for id in ids]
    assert len(everything) == len(set(everything)) == 60
    holders = dict(select(ledger, "SELECT id, worker FROM jobs"))
    assert holders == {id: worker for worker, ids in taken.items() for id in ids}


def test_a_job_that_begins_is_still_the_same_attempt(ledger: Ledger):
    accept(ledger)
    job = take_one(ledger)

    assert begin(ledger, job)
    assert look(ledger, job.id).attempt == 1
