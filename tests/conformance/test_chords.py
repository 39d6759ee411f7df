"""Chords: the last success fires the body, once, with the results in order; a member that fails, fails it."""

import json
import threading
from typing import Any

import pytest

from celeriac.access import SYSTEM
from celeriac.jobs import CHORD_RESULTS, Chord, Claimed, Message, Submission
from celeriac.ledger import Asked, Ledger, cancel, finish, open_chord, read, reopen, upkeep
from celeriac.states import State
from conformance.moves import (
    accept,
    begin,
    counted,
    end,
    failure,
    given_back,
    kinds,
    look,
    roll_back,
    running,
    select,
    state_of,
    submission,
    submit_all,
    success,
    take,
)

MARK = json.dumps(CHORD_RESULTS)


def body(id: str = "body", **changes: Any) -> Submission:
    """A job that takes the results of a chord."""
    message = Message('{"task":"add"}', "{}", f"[[{MARK}],{{}},{{}}]")
    return submission(id=id, message=message, args=f"[{MARK}]", queue="bodies", existing_ok=True, **changes)


def open_one(ledger: Ledger, size: int, **changes: Any) -> Chord:
    chord = Chord("chord", size=size, body=(body(),), **changes)
    ledger.do(open_chord, chord)
    return chord


def members(ledger: Ledger, size: int, chord: str = "chord") -> list[Claimed]:
    """Submit and claim the members of a chord; answer them in the order of their places."""
    submit_all(ledger, *(submission(chord=chord, group=chord, group_index=place) for place in range(size)))
    jobs = take(ledger, size)
    assert len(jobs) == size
    return jobs


def bodies(ledger: Ledger) -> list[Claimed]:
    return take(ledger, 10, queues=("bodies",))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_chord_fires_its_body_once_with_the_results_in_order(ledger: Ledger, size: int):
    open_one(ledger, size)
    jobs = members(ledger, size)

    for job in reversed(jobs):
        assert bodies(ledger) == []
        end(ledger, success(job, str(job.key * 10)))

    [fired] = bodies(ledger)
    assert json.loads(fired.message.body)[0] == [[job.key * 10 for job in jobs]]
    assert kinds(ledger, "body") == ["submitted", "claimed"]
    counted(ledger)


def test_lists_show_nothing_of_the_results_a_body_is_called_with(ledger: Ledger):
    open_one(ledger, 1)
    end(ledger, success(members(ledger, 1)[0], '{"password":"hunter2"}'))

    assert "hunter2" in look(ledger, "body").message.body
    assert read.summary(ledger, SYSTEM, "body").args == '[["…"]]'


def test_members_that_end_in_one_batch_fire_the_body_once(ledger: Ledger):
    open_one(ledger, 3)

    assert end(ledger, *(success(job) for job in members(ledger, 3))) == [True] * 3

    assert [job.id for job in bodies(ledger)] == ["body"]


def test_members_that_end_at_the_same_time_fire_the_body_once(ledger: Ledger):
    open_one(ledger, 12)
    jobs = members(ledger, 12)

    threads = [threading.Thread(target=end, args=(ledger, success(job))) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert kinds(ledger, "body") == ["submitted"]
    counted(ledger)


def test_the_body_commits_with_the_last_member(ledger: Ledger):
    open_one(ledger, 2)
    first, last = members(ledger, 2)
    end(ledger, success(first))

    assert roll_back(ledger, finish, success(last)) == [True]
    assert (bodies(ledger), state_of(ledger, last.id)) == ([], State.RUNNING)

    told = []
    ledger.announce = told.append
    end(ledger, success(last))
    assert len(told) == 1
    assert set(told[0].wakes) == {"bodies"}


def test_a_part_is_counted_once(ledger: Ledger):
    open_one(ledger, 2)
    first, last = members(ledger, 2)

    for _ in range(3):
        end(ledger, success(first))
    assert bodies(ledger) == []

    end(ledger, success(last))
    assert len(bodies(ledger)) == 1


def test_an_attempt_that_lost_its_job_counts_no_part(ledger: Ledger):
    open_one(ledger, 1)
    [late] = members(ledger, 1)
    end(ledger, given_back(late))
    [job] = take(ledger)

    end(ledger, success(late, '"late"'))
    assert bodies(ledger) == []

    end(ledger, success(job, '"right"'))
    assert json.loads(bodies(ledger)[0].message.body)[0] == [["right"]]


def test_a_member_without_a_result_counts_as_null(ledger: Ledger):
    open_one(ledger, 1)
    [job] = members(ledger, 1)

    end(ledger, success(job, result=None))

    assert json.loads(bodies(ledger)[0].message.body)[0] == [[None]]


def test_results_that_look_like_the_mark_or_like_quotes_arrive_as_they_are(ledger: Ledger):
    open_one(ledger, 2)
    results = [MARK, json.dumps('"]}\\ü\n')]

    end(ledger, *(success(job, result) for job, result in zip(members(ledger, 2), results, strict=True)))

    assert json.loads(bodies(ledger)[0].message.body)[0] == [[json.loads(result) for result in results]]


def test_a_failing_member_fails_the_body_without_running_it(ledger: Ledger):
    open_one(ledger, 2)
    first, second = members(ledger, 2)

    end(ledger, failure(first))

    failed = look(ledger, "body")
    assert (failed.state, failed.failure.code, failed.failure.type) == (State.FAILED, "upstream-failed", "ChordError")
    assert first.id in failed.failure.message
    assert "boom" in failed.failure.message
    assert json.loads(failed.failure.celery)["exc_type"] == "ChordError"
    assert kinds(ledger, "body") == ["submitted", "failed"]

    end(ledger, success(second))
    assert (bodies(ledger), kinds(ledger, "body")) == ([], ["submitted", "failed"])
    counted(ledger)


def test_many_failing_members_fail_the_body_once(ledger: Ledger):
    open_one(ledger, 3)
    first, second, third = members(ledger, 3)

    end(ledger, failure(first), failure(second))
    end(ledger, failure(third))

    assert kinds(ledger, "body") == ["submitted", "failed"]
    counted(ledger)


def test_a_cancelled_member_fails_the_body(ledger: Ledger):
    open_one(ledger, 2)
    ids = [receipt.id for receipt in submit_all(ledger, submission(chord="chord"), submission(chord="chord"))]

    ledger.do(cancel, Asked(SYSTEM, ids[0]))

    assert look(ledger, "body").failure.code == "upstream-failed"


def test_an_expired_member_cancels_the_body(ledger: Ledger):
    open_one(ledger, 2)
    submit_all(ledger, submission(chord="chord", expires_at=1), submission(chord="chord"))

    with ledger.transaction() as tx:
        assert upkeep.expire(tx) == 1

    assert state_of(ledger, "body") is State.CANCELLED


def test_a_member_that_is_lost_for_good_fails_the_body(ledger: Ledger):
    open_one(ledger, 1)
    submit_all(ledger, submission(chord="chord", rerun=False))
    [job] = take(ledger)
    begin(ledger, job)

    with ledger.transaction() as tx:
        assert upkeep.rescue(tx) == 1

    assert state_of(ledger, job.id) is State.FAILED
    assert state_of(ledger, "body") is State.FAILED
    counted(ledger)


def test_a_chord_whose_body_is_a_member_of_another_fails_that_one_too(ledger: Ledger):
    ledger.do(open_chord, Chord("outer", size=1, body=(body("outer-body"),)))
    ledger.do(open_chord, Chord("chord", size=2, body=(body(chord="outer", group_index=0),)))

    end(ledger, failure(members(ledger, 2)[0]))

    assert state_of(ledger, "body") is State.FAILED
    assert state_of(ledger, "outer-body") is State.FAILED
    assert bodies(ledger) == []
    counted(ledger)


def test_a_chord_whose_body_is_a_member_of_another_fires_both(ledger: Ledger):
    ledger.do(open_chord, Chord("outer", size=1, body=(body("outer-body"),)))
    ledger.do(open_chord, Chord("chord", size=2, body=(body(chord="outer", group_index=0),)))

    end(ledger, *(success(job) for job in members(ledger, 2)))
    [inner] = bodies(ledger)
    end(ledger, success(inner, "6"))

    [outer] = bodies(ledger)
    assert (outer.id, json.loads(outer.message.body)[0]) == ("outer-body", [[6]])


def inner_chord() -> Chord:
    """A chord whose body is a chord itself: its body is the header of the inner one."""
    header = tuple(body(f"inner-{place}", chord="inner", group_index=place) for place in range(2))
    return Chord("chord", size=1, body=header, chords=(Chord("inner", size=2, body=(body("inner-body"),)),))


def test_a_body_that_is_a_chord_itself_is_opened_and_fires(ledger: Ledger):
    ledger.do(open_chord, inner_chord())
    end(ledger, success(members(ledger, 1)[0], "1"))

    header = bodies(ledger)
    assert [(job.id, json.loads(job.message.body)[0]) for job in header] == [("inner-0", [[1]]), ("inner-1", [[1]])]
    end(ledger, *(success(job, str(place)) for place, job in enumerate(header)))

    [last] = bodies(ledger)
    assert (last.id, json.loads(last.message.body)[0]) == ("inner-body", [[0, 1]])
    counted(ledger)


def test_a_body_that_is_a_chord_itself_fails_down_to_its_body(ledger: Ledger):
    ledger.do(open_chord, inner_chord())

    end(ledger, failure(members(ledger, 1)[0]))

    assert [state_of(ledger, id) for id in ("inner-0", "inner-1", "inner-body")] == [State.FAILED] * 3
    counted(ledger)


def test_a_body_may_come_after_the_size_and_after_the_members(ledger: Ledger):
    ledger.do(open_chord, Chord("chord", size=2))
    end(ledger, *(success(job) for job in members(ledger, 2)))
    assert bodies(ledger) == []

    ledger.do(open_chord, Chord("chord", body=(body(),)))
    ledger.do(open_chord, Chord("chord", size=2))

    assert len(bodies(ledger)) == 1


def test_a_size_may_come_after_the_body_and_the_members(ledger: Ledger):
    ledger.do(open_chord, Chord("chord", body=(body(),)))
    end(ledger, *(success(job) for job in members(ledger, 2)))
    assert bodies(ledger) == []

    ledger.do(open_chord, Chord("chord", size=2))

    assert len(bodies(ledger)) == 1


def test_a_size_that_is_told_again_fires_nothing_again(ledger: Ledger):
    open_one(ledger, 1)
    end(ledger, success(members(ledger, 1)[0]))

    ledger.do(open_chord, Chord("chord", size=1))

    assert kinds(ledger, "body") == ["submitted"]


def test_a_chord_opened_by_an_attempt_commits_with_it(ledger: Ledger):
    parent = running(ledger)
    header = tuple(submission(id=f"member-{place}", chord="chord", group_index=place) for place in range(2))
    end(ledger, success(parent, sends=header, chords=(Chord("chord", size=2, body=(body(),)),)))

    end(ledger, *(success(job) for job in take(ledger, 2)))

    assert [job.id for job in bodies(ledger)] == ["body"]


def test_a_chord_opened_by_a_stale_attempt_is_not_opened(ledger: Ledger):
    parent = running(ledger)
    end(ledger, given_back(parent))

    end(ledger, success(parent, chords=(Chord("chord", size=0, body=(body(),)),)))

    assert select(ledger, "SELECT id FROM chords") == []
    assert bodies(ledger) == []


def test_a_failed_member_that_is_opened_again_and_succeeds_fires_the_chord_after_all(ledger: Ledger):
    open_one(ledger, 1)
    [job] = members(ledger, 1)
    end(ledger, failure(job))
    assert state_of(ledger, "body") is State.FAILED
    ledger.do(reopen, Asked(SYSTEM, job.id))

    end(ledger, success(take(ledger)[0]))

    assert state_of(ledger, "body") is State.QUEUED
    assert kinds(ledger, "body") == ["submitted", "failed", "reopened"]
    assert CHORD_RESULTS not in look(ledger, "body").message.body
    counted(ledger)


def test_a_chord_with_two_failed_members_waits_for_both_to_be_opened_again(ledger: Ledger):
    open_one(ledger, 2)
    jobs = members(ledger, 2)
    end(ledger, *(failure(job) for job in jobs))
    ledger.do(reopen, Asked(SYSTEM, jobs[0].id))
    end(ledger, success(take(ledger)[0]))
    assert state_of(ledger, "body") is State.FAILED

    ledger.do(reopen, Asked(SYSTEM, jobs[1].id))
    end(ledger, success(take(ledger)[0]))

    assert state_of(ledger, "body") is State.QUEUED


def test_a_body_and_a_size_may_come_in_one_batch(ledger: Ledger):
    with ledger.transaction() as tx:
        open_chord(tx, [Chord("chord", body=(body(),)), Chord("chord", size=1)])

    end(ledger, success(members(ledger, 1)[0]))

    assert len(bodies(ledger)) == 1


def test_a_chord_of_nothing_fires_at_once(ledger: Ledger):
    open_one(ledger, 0)

    assert json.loads(bodies(ledger)[0].message.body)[0] == [[]]


def test_two_chords_that_end_in_one_batch_keep_their_results_apart(ledger: Ledger):
    for name in ("one", "two"):
        ledger.do(open_chord, Chord(name, size=2, body=(body(f"body-{name}"),)))
    jobs = [*members(ledger, 2, "one"), *members(ledger, 2, "two")]

    end(ledger, *(success(job, str(number)) for number, job in enumerate(jobs)))

    fired = {job.id: json.loads(job.message.body)[0] for job in bodies(ledger)}
    assert fired == {"body-one": [[0, 1]], "body-two": [[2, 3]]}


def test_a_job_that_is_no_member_touches_no_chord(ledger: Ledger):
    open_one(ledger, 1)
    accept(ledger, group="chord")

    end(ledger, success(take(ledger)[0]))

    assert bodies(ledger) == []
