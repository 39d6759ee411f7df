"""Looking: pages with every filter, cursors, history, queues; and what somebody else's jobs look like."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM, Principal
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.errors import InvalidRequest, JobNotFound
from celeriac.jobs import Filter
from celeriac.ledger import Ledger, read
from conformance.moves import (
    BOOM,
    SECOND,
    accept,
    end,
    failure,
    running,
    submission,
    submit_all,
    success,
    take,
)

ANN = Principal("ann", PERMISSIONS[Role.SUBMITTER])
BOB = Principal("bob", PERMISSIONS[Role.SUBMITTER])


def pages(ledger: Ledger, principal: Principal = SYSTEM, limit: int = 3, **filter: object) -> list[str]:
    """The ids of all pages, in order; no page may be longer than the limit, none but the last shorter."""
    ids, after = [], None
    while True:
        jobs, cursor = read.page(ledger, principal, Filter(**filter), after, limit)
        ids += [job.id for job in jobs]
        if cursor is None:
            assert len(jobs) <= limit
            return ids
        assert len(jobs) == limit
        after = cursor


@pytest.fixture
def varied(ledger: Ledger, fake_clock) -> list[dict]:
    """Twenty-four jobs, one second apart, that differ in everything a filter asks for; oldest first."""
    made = []
    for number in range(24):
        about = {
            "id": f"job-{number:02}", "task": ("add", "mail.send", "mail_bulk")[number % 3],
            "queue": ("default", "big")[number % 2], "owner": ("ann", "bob")[number // 12],
            "tags": (("red",), ("red", "blue"), (), ("100%",))[number % 4],
            "failure": BOOM if number % 5 == 0 else None,
        }  # fmt: skip
        accept(ledger, **about)
        made.append(about | {"created_at": clock.micros(), "state": "failed" if about["failure"] else "queued"})
        fake_clock.advance(1)
    return made


def newest_first(jobs: list[dict]) -> list[str]:
    return [job["id"] for job in reversed(jobs)]


def test_pages_go_through_everything_newest_first(ledger: Ledger, varied):
    for limit in (1, 7, 23, 24, 25):
        assert pages(ledger, limit=limit) == newest_first(varied)


@pytest.mark.parametrize(
    ("filter", "keeps"),
    [
        ({"states": ("queued",)}, lambda job: job["state"] == "queued"),
        ({"states": ("queued", "failed")}, lambda job: True),
        ({"tasks": ("mail.send",)}, lambda job: job["task"] == "mail.send"),
        ({"tasks": ("mail.send", "add")}, lambda job: job["task"] != "mail_bulk"),
        ({"queues": ("big",)}, lambda job: job["queue"] == "big"),
        ({"owners": ("bob",)}, lambda job: job["owner"] == "bob"),
        ({"tags": ("red",)}, lambda job: "red" in job["tags"]),
        ({"tags": ("blue", "100%")}, lambda job: {"blue", "100%"} & set(job["tags"])),
        ({"states": ("failed",), "queues": ("big",), "tags": ("red",)},
         lambda job: job["state"] == "failed" and job["queue"] == "big" and "red" in job["tags"]),
        ({"states": ("running",)}, lambda job: False),
        ({"tags": ("nothing",)}, lambda job: False),
    ],
)  # fmt: skip
def test_a_filter_keeps_what_it_names(ledger: Ledger, varied, filter, keeps):
    assert pages(ledger, **filter) == newest_first([job for job in varied if keeps(job)])


def test_since_is_included_and_until_is_not(ledger: Ledger, varied):
    since, until = varied[5]["created_at"], varied[15]["created_at"]

    assert pages(ledger, since=since, until=until) == newest_first(varied[5:15])
    assert pages(ledger, since=since) == newest_first(varied[5:])
    assert pages(ledger, until=until) == newest_first(varied[:15])
    assert pages(ledger, since=until, until=since) == []


@pytest.mark.parametrize(
    ("q", "keeps"),
    [
        ("job-1", lambda job: job["id"].startswith("job-1")),
        ("mail", lambda job: job["task"].startswith("mail")),
        ("mail_", lambda job: job["task"] == "mail_bulk"),
        ("Value", lambda job: job["failure"]),
        ("re", lambda job: "red" in job["tags"]),
        ("100%", lambda job: "100%" in job["tags"]),
        ("%", lambda job: False),
        ("_", lambda job: False),
        ("ob-1", lambda job: False),
        ("' OR 1=1 --", lambda job: False),
    ],
)
def test_q_is_a_prefix_of_id_task_error_or_tag(ledger: Ledger, varied, q, keeps):
    assert pages(ledger, q=q) == newest_first([job for job in varied if keeps(job)])


def test_a_cursor_holds_while_jobs_come_and_go(ledger: Ledger, varied):
    first, after = read.page(ledger, SYSTEM, Filter(), None, 10)
    accept(ledger)
    take(ledger, 30, queues=("default", "big"), tasks=("add",))

    second, _ = read.page(ledger, SYSTEM, Filter(), after, 10)

    assert [job.id for job in first + second] == newest_first(varied)[:20]


@pytest.mark.parametrize("cursor", ["", "k", "12", "kxyz", "k1 OR 1=1", "K1", "k" + "f" * 16, "k-1"])
def test_a_cursor_that_no_list_gave_out_is_refused(ledger: Ledger, cursor: str):
    with pytest.raises(InvalidRequest):
        read.page(ledger, SYSTEM, Filter(), cursor, 10)


def test_lists_carry_previews_and_one_job_the_whole(ledger: Ledger):
    job = running(ledger, args='{"x":"…"}')
    end(ledger, replace(success(job, '"long"'), preview='"l…"'))

    [listed], _ = read.page(ledger, ANN, Filter(), None, 10)
    whole = read.job(ledger, ANN, job.id)
    assert (listed.result, listed.message) == ('"l…"', None)
    assert (whole.result, whole.message.body) == ('"long"', "[[1,2],{},{}]")
    assert listed.args == whole.args == '{"x":"…"}'
    assert read.summary(ledger, ANN, job.id) == listed


def test_the_traceback_is_for_who_looks_at_one_job(ledger: Ledger):
    job = running(ledger)
    end(ledger, failure(job))

    assert read.summary(ledger, ANN, job.id).failure.traceback is None
    assert read.job(ledger, ANN, job.id).failure.traceback == "Traceback …"


def test_other_owners_jobs_are_invisible(ledger: Ledger, varied):
    assert pages(ledger, ANN) == newest_first(varied[:12])
    assert pages(ledger, ANN, owners=("bob",)) == []
    assert pages(ledger, ANN, q="job-2") == []
    for look in (read.job, read.summary):
        with pytest.raises(JobNotFound):
            look(ledger, ANN, "job-20")
    with pytest.raises(JobNotFound):
        read.history(ledger, ANN, "job-20", 0, 10)
    assert read.job(ledger, BOB, "job-20").owner == "bob"


def test_what_is_not_there_looks_like_what_may_not_be_seen(ledger: Ledger):
    accept(ledger, id="anns")

    told = []
    for id in ("anns", "nothing"):
        with pytest.raises(JobNotFound) as refusal:
            read.job(ledger, BOB, id)
        told.append(str(refusal.value).replace(id, "…"))
    assert told[0] == told[1]


def test_history_goes_on_after_a_number(ledger: Ledger):
    job = running(ledger)
    end(ledger, success(job))

    events = read.history(ledger, ANN, job.id, 0, 100)
    assert [event.number for event in events] == [1, 2, 3, 4]
    assert [event.position for event in events] == sorted(event.position for event in events)
    assert read.history(ledger, ANN, job.id, 1, 2) == events[1:3]
    assert read.history(ledger, ANN, job.id, 4, 2) == []


def test_who_has_ended_is_told_for_many_at_once(ledger: Ledger):
    done, waiting = running(ledger), accept(ledger)
    end(ledger, success(done))

    assert read.ended(ledger, [waiting, done.id, "gone"]) == [done.id, "gone"]
    assert read.ended(ledger, []) == []


def test_queues_are_told_with_counts_and_the_age_of_what_waits(ledger: Ledger, fake_clock):
    oldest = clock.micros()
    submit_all(ledger, submission(), submission())
    fake_clock.advance(5)
    accept(ledger, priority=9)
    accept(ledger, queue="later", run_at=clock.micros() + SECOND)
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql("INSERT INTO queues (name, paused_at) VALUES ('paused', 7)")
    take(ledger)

    default, later, paused = read.all_queues(ledger)

    assert (default.name, default.counts, default.oldest_queued_at) == ("default", {"queued": 2, "running": 1}, oldest)
    assert (later.name, later.counts, later.oldest_queued_at) == ("later", {"scheduled": 1}, None)
    assert (paused.name, paused.paused_at, paused.counts) == ("paused", 7, {})


def test_whether_anything_waits_is_told_by_queue(ledger: Ledger):
    accept(ledger, queue="big")

    assert read.any_queued(ledger, ["small", "big"])
    assert not read.any_queued(ledger, ["small"])
    assert not read.any_queued(ledger, [])
