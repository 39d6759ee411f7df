"""Chains: what follows a job that ends without success is given up with it, and comes back with it."""

from typing import Any

import pytest

from celeriac.access import SYSTEM
from celeriac.jobs import Message, Submission
from celeriac.ledger import Asked, Ledger, cancel, reopen, upkeep
from celeriac.ledger.moves.abandon import links
from celeriac.ledger.sql import as_json
from celeriac.states import State
from conformance.moves import (
    accept,
    begin,
    counted,
    end,
    failure,
    kinds,
    look,
    state_of,
    submission,
    submit_all,
    success,
    take_one,
)


def link(id: str, **options: Any) -> dict[str, Any]:
    return {"task": "noop", "args": [], "kwargs": {"n": 1}, "options": {"task_id": id, **options}, "subtask_type": None}


def chained(*links_after: dict[str, Any], **changes: Any) -> Submission:
    """A job with links behind it; Celery keeps them last first."""
    body = as_json([[], {}, {"callbacks": None, "errbacks": None, "chain": list(links_after[::-1]), "chord": None}])
    return submission(id="first", message=Message("{}", "{}", body), **changes)


def test_a_failure_gives_up_every_link_behind_it(ledger: Ledger):
    submit_all(ledger, chained(link("second"), link("third")))

    end(ledger, failure(take_one(ledger)))

    assert [state_of(ledger, id) for id in ("second", "third")] == [State.FAILED] * 2
    assert look(ledger, "third").failure.code == "upstream-failed"
    assert kinds(ledger, "third") == ["submitted", "failed"]
    counted(ledger)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "12345678901234567890123", r'"\ud800"'])
@pytest.mark.parametrize("how", ["failure", "cancel", "expiry", "loss"])
def test_what_only_pythons_json_knows_ends_as_everything_else(ledger: Ledger, value: str, how: str):
    """`.delay()` takes it, and stores what Python's json makes of it."""
    after = [{**link("second"), "args": "VALUE"}]
    body = as_json([["VALUE"], {}, {"chain": after, "errbacks": [link("told")]}]).replace('"VALUE"', value)
    submit_all(
        ledger, submission(id="first", message=Message("{}", "{}", body), expires_at=1 if how == "expiry" else None)
    )
    ledger.max_deaths = 1

    if how == "failure":
        end(ledger, failure(take_one(ledger)))
    elif how == "cancel":
        ledger.do(cancel, Asked(SYSTEM, "first"))
    elif how == "expiry":
        with ledger.transaction() as tx:
            upkeep.expire(tx)
    else:
        begin(ledger, take_one(ledger, worker="gone"))
        with ledger.transaction() as tx:
            upkeep.rescue(tx)

    assert {state_of(ledger, id) for id in ("first", "second")} <= {State.FAILED, State.CANCELLED}
    counted(ledger)


def test_a_cancel_cancels_every_link_behind_it(ledger: Ledger):
    submit_all(ledger, chained(link("second"), link("third")))

    ledger.do(cancel, Asked(SYSTEM, "first"))

    assert [state_of(ledger, id) for id in ("second", "third")] == [State.CANCELLED] * 2
    counted(ledger)


def test_an_expiry_cancels_every_link_behind_it(ledger: Ledger):
    submit_all(ledger, chained(link("second"), expires_at=1))

    with ledger.transaction() as tx:
        upkeep.expire(tx)

    assert state_of(ledger, "second") is State.CANCELLED


def test_a_success_gives_up_nothing(ledger: Ledger):
    submit_all(ledger, chained(link("second")))

    end(ledger, success(take_one(ledger)))

    with pytest.raises(Exception, match="no job 'second'"):
        look(ledger, "second")


def test_a_link_that_was_given_up_runs_when_the_one_before_it_succeeds_after_all(ledger: Ledger):
    submit_all(ledger, chained(link("second"), link("third")))
    end(ledger, failure(take_one(ledger)))
    ledger.do(reopen, Asked(SYSTEM, "first"))

    real = submission(id="second", message=Message("{}", "{}", '[[7],{},{"chain":null}]'))
    end(ledger, success(take_one(ledger), sends=(real,)))

    assert (state_of(ledger, "second"), state_of(ledger, "third")) == (State.QUEUED, State.FAILED)
    assert kinds(ledger, "second") == ["submitted", "failed", "reopened"]
    assert take_one(ledger).message.body.startswith("[[7]")
    counted(ledger)


def test_an_id_that_did_run_is_not_taken_over(ledger: Ledger):
    id = accept(ledger)
    end(ledger, failure(take_one(ledger)))

    [answer] = submit_all(ledger, submission(id=id))

    assert answer.replayed
    assert state_of(ledger, id) is State.FAILED


def test_a_chord_in_a_chain_stands_for_its_body_and_a_group_for_its_members():
    chord = {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"body": link("body")}, "options": {}}
    group = {
        "task": "celery.group",
        "subtask_type": "group",
        "kwargs": {"tasks": [link("a"), link("b")]},
        "options": {},
    }
    body = chained(chord, group, link("last")).message.body

    assert [each["options"]["task_id"] for each in links(body)] == ["body", "a", "b", "last"]
