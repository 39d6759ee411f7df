"""A job that goes on as a canvas: its row waits until the last task of that is submitted under its id, or given up."""

from dataclasses import replace

import pytest

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.jobs import Chord, Kind, Message
from celeriac.ledger import Asked, Ledger, cancel, open_chord, upkeep
from celeriac.ledger.sql import as_json
from celeriac.states import State
from conformance.moves import (
    accept,
    counted,
    end,
    failure,
    kinds,
    look,
    outcome,
    state_of,
    submission,
    submit_all,
    success,
    take,
    take_one,
)


def goes_on(claim, *sends, **fields):
    """The outcome of an attempt that replaced its job by a canvas."""
    return replace(outcome(claim, State.RETRYING, Kind.RETRYING), replaced=True, sends=sends, **fields)


def chain_of(*ids: str, **options):
    """The first task of a chain, with the others behind it; the last has these options."""
    links = [{"task": "add", "args": [], "kwargs": {}, "options": {"task_id": id}} for id in ids[1:]]
    links[-1]["options"].update(options)
    return submission(id=ids[0], message=Message("{}", "{}", as_json([[], {}, {"chain": links[::-1]}])))


def replaced(ledger: Ledger, **options) -> str:
    """Submit a job and let it go on as a chain whose last task has its id and these options."""
    id = accept(ledger, run_at=1, chord=options.get("group_id"))
    end(ledger, goes_on(take_one(ledger), chain_of("first", id, **options)))
    return id


def test_it_waits_without_a_time_and_nobody_claims_it(ledger: Ledger):
    id = replaced(ledger)
    with ledger.transaction() as tx:
        assert upkeep.fall_due(tx) == 0

    assert state_of(ledger, id) is State.RETRYING
    assert take_one(ledger).id == "first"
    counted(ledger)


def test_it_runs_as_the_last_task_of_the_canvas(ledger: Ledger):
    id = replaced(ledger)
    end(ledger, replace(success(take_one(ledger)), sends=(submission(id=id, task="total"),)))
    claim = take_one(ledger, tasks=["total"])
    assert (claim.id, claim.task, claim.attempt) == (id, "total", 2)
    end(ledger, success(claim))

    assert kinds(ledger, id) == ["submitted", "claimed", "retrying", "claimed", "succeeded"]
    counted(ledger)


def test_it_fails_with_the_canvas(ledger: Ledger):
    id = replaced(ledger)
    end(ledger, failure(take_one(ledger)))

    job = look(ledger, id)
    assert (job.state, job.failure.code) == (State.FAILED, "upstream-failed")
    assert kinds(ledger, id)[-1] == "failed"
    counted(ledger)


def test_the_chord_it_is_a_member_of_fails_with_the_canvas(ledger: Ledger):
    ledger.do(open_chord, Chord("c", size=1, body=(submission(id="body"),)))
    replaced(ledger, group_id="c", chord={"task": "total"})
    end(ledger, failure(take_one(ledger)))

    assert state_of(ledger, "body") is State.FAILED


def test_the_chord_it_is_a_member_of_gets_its_result_in_the_end(ledger: Ledger):
    ledger.do(open_chord, Chord("c", size=1, body=(submission(id="body"),)))
    id = replaced(ledger, group_id="c", chord={"task": "total"})
    end(ledger, replace(success(take_one(ledger)), sends=(submission(id=id, chord="c"),)))
    end(ledger, success(take_one(ledger)))

    assert take_one(ledger).id == "body"


def test_it_may_be_cancelled_while_it_waits(ledger: Ledger):
    id = replaced(ledger)
    assert ledger.do(cancel, Asked(SYSTEM, id)) is State.CANCELLED
    end(ledger, replace(success(take_one(ledger)), sends=(submission(id=id),)))

    assert state_of(ledger, id) is State.CANCELLED
    counted(ledger)


def test_a_cancel_asked_for_before_drops_the_canvas(ledger: Ledger):
    id = accept(ledger)
    claim = take_one(ledger)
    ledger.do(cancel, Asked(SYSTEM, id))
    end(ledger, goes_on(claim, chain_of("first", id)))

    assert state_of(ledger, id) is State.CANCELLED
    assert take(ledger) == []


def test_a_chord_without_members_lets_it_run_at_once(ledger: Ledger):
    id = accept(ledger)
    end(ledger, goes_on(take_one(ledger), chords=(Chord("c", size=0, body=(submission(id=id, existing_ok=True),)),)))

    assert take_one(ledger).id == id


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_a_job_that_does_not_wait_so_is_not_taken_over(ledger: Ledger, state):
    id = accept(ledger)
    if state != "queued":
        claim = take_one(ledger)
    if state == "retrying":
        end(ledger, replace(outcome(claim, State.RETRYING, Kind.RETRYING), run_at=2**60))
    submit_all(ledger, submission(id=id, task="other"))

    assert (state_of(ledger, id), look(ledger, id).task) == (State(state), "add")


def test_a_last_task_with_a_countdown_waits_for_its_time(ledger: Ledger, fake_clock):
    id = replaced(ledger)
    last = submission(id=id, run_at=clock.micros() + 5_000_000)
    end(ledger, replace(success(take_one(ledger)), sends=(last,)))
    assert (state_of(ledger, id), look(ledger, id).run_at) == (State.RETRYING, last.run_at)

    fake_clock.advance(6)
    with ledger.transaction() as tx:
        upkeep.fall_due(tx)
    assert take_one(ledger).id == id
    counted(ledger)
