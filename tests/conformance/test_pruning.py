"""What is old goes, a few at a time, with all that belongs to it; what is still needed stays."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.errors import JobNotFound
from celeriac.jobs import Chord, Unique
from celeriac.ledger import Asked, Ledger, cancel, mail, nodes, open_chord, pruning, read, reopen, stale, submit
from celeriac.ledger.pruning import Ended
from celeriac.states import State
from conformance.moves import (
    BOOM,
    SECOND,
    accept,
    counted,
    end,
    failure,
    kinds,
    look,
    running,
    select,
    state_of,
    submission,
    submit_all,
    success,
    take,
)
from conformance.test_nodes import NODE

DAY = 86_400 * SECOND


def prune_jobs(ledger: Ledger, before: int, most: int = 500) -> int:
    old = pruning.old_jobs(ledger, Ended(), before, most)
    with ledger.transaction() as tx:
        return pruning.prune_jobs(tx, [ended.key for ended in old], before)


def prune_events(ledger: Ledger, after: Ended, before: int, most: int = 500) -> Ended | None:
    old = pruning.old_jobs(ledger, after, before, most)
    with ledger.transaction() as tx:
        pruning.prune_events(tx, [ended.key for ended in old], before)
    return old[-1] if old else None


def drop_stale(ledger: Ledger, age: int = 0) -> None:
    """One pass over everything that is not a job's, of what is older than `age`."""
    now = clock.micros()
    for walk in stale.WALKS:
        rows, _ = stale.stale(ledger, walk, walk.start, now - age, now)
        with ledger.transaction() as tx:
            stale.drop(tx, walk, rows, now - age, now)
    with ledger.transaction() as tx:
        stale.drop_heads(tx, now - age, now - age, now, 500)


def tables(ledger: Ledger) -> dict[str, int]:
    names = ("jobs", "payloads", "events", "tags", "chord_parts")
    return {name: select(ledger, f"SELECT COUNT(*) FROM {name}")[0][0] for name in names}


# Jobs


def test_old_jobs_go_with_all_that_belongs_to_them(ledger: Ledger, fake_clock):
    old = running(ledger, tags=("red",))
    end(ledger, success(old))
    ledger.do(submit, submission(failure=BOOM, queue="other"))
    fake_clock.advance(60)
    end(ledger, failure(fresh := running(ledger, tags=("red",))))
    waiting = accept(ledger)

    assert prune_jobs(ledger, clock.micros() - 30 * SECOND) == 2

    with pytest.raises(JobNotFound):
        look(ledger, old.id)
    assert (state_of(ledger, fresh.id), state_of(ledger, waiting)) == (State.FAILED, State.QUEUED)
    assert tables(ledger) == {"jobs": 2, "payloads": 2, "events": 5, "tags": 1, "chord_parts": 0}
    assert counted(ledger) == {("failed", "default", "add"): 1, ("queued", "default", "add"): 1}


def test_a_job_that_has_not_ended_is_never_old(ledger: Ledger, fake_clock):
    accept(ledger)
    accept(ledger, run_at=clock.micros() + 400 * DAY)
    take(ledger)
    fake_clock.advance(86_400 * 365)

    assert prune_jobs(ledger, clock.micros()) == 0


def test_a_job_that_was_opened_again_meanwhile_stays_with_its_history(ledger: Ledger, fake_clock):
    id = accept(ledger, failure=BOOM)
    fake_clock.advance(60)
    [old] = pruning.old_jobs(ledger, Ended(), clock.micros(), 10)
    ledger.do(reopen, Asked(SYSTEM, id))

    with ledger.transaction() as tx:
        assert pruning.prune_jobs(tx, [old.key], clock.micros()) == 0
        pruning.prune_events(tx, [old.key], clock.micros())

    assert kinds(ledger, id) == ["submitted", "failed", "reopened"]
    counted(ledger)


def test_pruning_goes_in_batches_oldest_first(ledger: Ledger, fake_clock):
    ids = []
    for _ in range(5):
        ids.append(accept(ledger, failure=BOOM))
        fake_clock.advance(1)

    assert prune_jobs(ledger, clock.micros(), most=2) == 2

    assert read.ended(ledger, ids) == ids
    assert [id for (id,) in select(ledger, "SELECT id FROM jobs ORDER BY key")] == ids[2:]
    assert [prune_jobs(ledger, clock.micros(), most=2) for _ in range(3)] == [2, 1, 0]
    assert counted(ledger) == {}


def test_members_of_a_chord_that_has_not_fired_are_kept(ledger: Ledger, fake_clock):
    ledger.do(open_chord, Chord("chord", size=2, body=(submission(id="body", queue="bodies"),)))
    submit_all(ledger, *(submission(chord="chord", group_index=place) for place in range(2)))
    first, second = take(ledger, 2)
    end(ledger, success(first))
    fake_clock.advance(60)
    assert prune_jobs(ledger, clock.micros()) == 0

    end(ledger, success(second))
    assert tables(ledger)["chord_parts"] == 2
    fake_clock.advance(60)

    assert prune_jobs(ledger, clock.micros()) == 2
    assert tables(ledger)["chord_parts"] == 0
    assert state_of(ledger, "body") is State.QUEUED


# Events


def test_old_events_go_before_their_jobs(ledger: Ledger, fake_clock):
    ended = []
    for _ in range(5):
        job = running(ledger)
        end(ledger, success(job))
        ended.append(job)
        fake_clock.advance(10)
    waiting = accept(ledger)

    marks, mark = [], Ended()
    while mark is not None:
        mark = prune_events(ledger, mark, clock.micros() - 15 * SECOND, most=2)
        marks.append(mark and mark.key)

    assert marks == [ended[1].key, ended[3].key, None]
    assert [read.history(ledger, SYSTEM, job.id, 0, 10) for job in ended[:4]] == [[]] * 4
    assert len(kinds(ledger, ended[4].id)) == 4
    assert kinds(ledger, waiting) == ["submitted"]
    assert state_of(ledger, ended[0].id) is State.SUCCEEDED


def test_jobs_that_ended_in_the_same_microsecond_are_all_reached(ledger: Ledger, fake_clock):
    submit_all(ledger, *(submission(failure=BOOM) for _ in range(5)))
    fake_clock.advance(1)

    mark: Ended | None = Ended()
    while mark is not None:
        mark = prune_events(ledger, mark, clock.micros(), most=2)

    assert tables(ledger)["events"] == 0


def test_who_takes_over_finds_where_events_begin(ledger: Ledger, fake_clock):
    for _ in range(40):
        accept(ledger, failure=BOOM)
        fake_clock.advance(100)
    pruned = clock.micros() - 1_050 * SECOND
    prune_events(ledger, Ended(), pruned)

    place = pruning.first_with_events(ledger, clock.micros())

    left = pruning.old_jobs(ledger, place, clock.micros(), 100)
    having = select(ledger, "SELECT COUNT(DISTINCT job) FROM events")[0][0]
    assert having <= len(left) <= having + 1


def test_where_events_begin_is_found_in_an_empty_ledger(ledger: Ledger):
    accept(ledger)

    assert pruning.old_jobs(ledger, pruning.first_with_events(ledger, clock.micros()), clock.micros(), 10) == []


# What nothing refers to any more


def test_the_rest_goes_when_nothing_refers_to_it(ledger: Ledger, fake_clock):
    ledger.do(open_chord, Chord("fired", size=0, body=(submission(id="body"),)))
    ledger.do(open_chord, Chord("waits", size=1, body=(submission(),)))
    accept(ledger, group="waits", chord="waits")
    ledger.do(nodes.register, NODE)
    ledger.do(nodes.register, replace(NODE, id="gone"))
    ledger.do(nodes.stop, "gone")
    fake_clock.advance(60)

    drop_stale(ledger)

    assert select(ledger, "SELECT id FROM chords") == [("waits",)]
    assert select(ledger, "SELECT id FROM workers") == [(NODE.id,)]


def test_an_idempotency_key_lives_as_long_as_its_job(ledger: Ledger, fake_clock):
    failed = accept(ledger, failure=BOOM, idempotency_key="k", fingerprint="f")
    accept(ledger, idempotency_key="waits", fingerprint="f")
    fake_clock.advance(60)
    drop_stale(ledger)
    assert len(select(ledger, "SELECT key FROM idempotency")) == 2

    assert prune_jobs(ledger, clock.micros()) == 1
    drop_stale(ledger, age=90 * SECOND)  # the job was deleted before its time
    assert len(select(ledger, "SELECT key FROM idempotency")) == 2
    drop_stale(ledger)

    assert select(ledger, "SELECT key FROM idempotency") == [("waits",)]
    with pytest.raises(JobNotFound):
        look(ledger, failed)


def test_a_unique_key_lives_as_long_as_its_job_which_is_unique_again_when_reopened(ledger: Ledger, fake_clock):
    ended = running(ledger, unique=Unique("k", 1))
    end(ledger, failure(ended))
    fake_clock.advance(60)
    drop_stale(ledger)
    ledger.do(reopen, Asked(SYSTEM, ended.id))
    assert ledger.do(submit, submission(unique=Unique("k", 1))).id == ended.id

    end(ledger, failure(take(ledger)[0]))
    fake_clock.advance(60)
    assert prune_jobs(ledger, clock.micros()) == 1
    drop_stale(ledger)
    assert select(ledger, "SELECT 1 FROM unique_keys") == []


def test_a_chord_that_never_fired_goes_with_its_members(ledger: Ledger, fake_clock):
    ledger.do(open_chord, Chord("broken", size=3, body=(submission(id="body"),)))
    submit_all(ledger, *(submission(group="broken", chord="broken", group_index=place) for place in range(2)))
    first, second = take(ledger, 2)
    end(ledger, success(first))
    fake_clock.advance(60)
    drop_stale(ledger, age=30 * SECOND)
    assert select(ledger, "SELECT id FROM chords") == [("broken",)]  # one still runs

    end(ledger, success(second))
    drop_stale(ledger, age=30 * SECOND)
    assert select(ledger, "SELECT id FROM chords") == [("broken",)]  # it has just ended

    fake_clock.advance(60)
    drop_stale(ledger, age=30 * SECOND)
    assert select(ledger, "SELECT id FROM chords") == []
    assert prune_jobs(ledger, clock.micros()) == 2
    assert tables(ledger) == {"jobs": 0, "payloads": 0, "events": 0, "tags": 0, "chord_parts": 0}


def test_a_batch_goes_after_the_last_of_its_jobs(ledger: Ledger, fake_clock):
    accept(ledger, batch="full", failure=BOOM)
    with ledger.transaction() as tx:
        for id in ("full", "empty"):
            tx.connection.exec_driver_sql(
                f"INSERT INTO batches (id, owner, jobs, created_at) VALUES ('{id}', 'ann', 1, {clock.micros()})"
            )
    fake_clock.advance(60)

    drop_stale(ledger)
    assert select(ledger, "SELECT id FROM batches") == [("full",)]

    prune_jobs(ledger, clock.micros())
    drop_stale(ledger)
    assert select(ledger, "SELECT id FROM batches") == []


def test_operations_and_endings_go_when_they_are_old(ledger: Ledger, fake_clock):
    now = clock.micros()
    columns = "id, kind, owner, permissions, filter, upto, created_at, finished_at"
    with ledger.transaction() as tx:
        for id, finished in (("open", "NULL"), ("old", now)):
            tx.connection.exec_driver_sql(
                f"INSERT INTO operations ({columns}) VALUES ('{id}', 'cancel', 'ann', '[]', '', 1, {now}, {finished})"
            )
        for minute in (now, now + 3600 * SECOND):
            tx.connection.exec_driver_sql(f"INSERT INTO endings VALUES ({minute}, 'failed', 'default', 'add', 1)")
    fake_clock.advance(60)

    drop_stale(ledger)

    assert select(ledger, "SELECT id FROM operations") == [("open",)]
    assert select(ledger, "SELECT minute FROM endings") == [(now + 3600 * SECOND,)]


def test_who_leaves_mail_unread_is_sent_no_more(ledger: Ledger, fake_clock):
    for name in ("gone", "reads"):
        mail.bind(ledger, "pidbox", "", "", name)
    ledger.do(mail.put, (["gone", "reads"], "{}"))
    mail.take(ledger, ["reads"])
    fake_clock.advance(60)
    ledger.do(mail.put, (["reads"], "{}"))

    drop_stale(ledger, age=30 * SECOND)

    assert mail.bindings(ledger, "pidbox") == [("", "", "reads")]
    assert select(ledger, "SELECT queue FROM mail") == [("reads",)]


def test_a_walk_goes_on_where_it_came_to(ledger: Ledger, fake_clock, monkeypatch):
    monkeypatch.setattr(stale, "STRETCH", 2)
    for number in range(5):
        ledger.do(open_chord, Chord(f"chord-{number}", size=0, body=(submission(),)))
    fake_clock.advance(60)
    [walk] = [walk for walk in stale.WALKS if walk.also]

    found, mark = [], walk.start
    for _ in range(3):
        rows, mark = stale.stale(ledger, walk, mark, clock.micros(), clock.micros())
        found += [row.id for row in rows]

    assert found == [f"chord-{number}" for number in range(5)]
    assert mark == walk.start


def test_what_came_to_be_needed_again_between_the_look_and_the_deletion_stays(ledger: Ledger, fake_clock):
    ledger.do(open_chord, Chord("chord", size=2, body=(submission(),)))
    fake_clock.advance(60)
    [walk] = [walk for walk in stale.WALKS if walk.also]
    now = clock.micros()
    rows, _ = stale.stale(ledger, walk, walk.start, now, now)
    accept(ledger, group="chord", chord="chord")

    with ledger.transaction() as tx:
        stale.drop(tx, walk, rows, now, now)

    assert len(rows) == 1
    assert select(ledger, "SELECT id FROM chords") == [("chord",)]


def test_a_cancelled_job_is_pruned_like_any_other(ledger: Ledger, fake_clock):
    id = accept(ledger)
    ledger.do(cancel, Asked(SYSTEM, id))
    fake_clock.advance(1)

    assert prune_jobs(ledger, clock.micros()) == 1
