"""A job that ends without success says what it took along: links of its chain, the body of its chord."""

import msgspec
import pytest

from celeriac.access import SYSTEM
from celeriac.jobs import Chord, Kind, Message
from celeriac.ledger import Asked, Ledger, cancel, open_chord, read, reopen
from celeriac.ledger.sql import as_json
from celeriac.states import State
from conformance.moves import accept, end, failure, outcome, submission, submit_all, take_one
from conformance.test_chords import MARK, body
from conformance.test_links import chained, link


def also(ledger: Ledger, id: str) -> tuple[str, list[str], int]:
    """The kind of a job's last event, and what it says was given up with the job."""
    last = read.history(ledger, SYSTEM, id, 0, 1000)[-1]
    data = msgspec.json.decode(last.data or "{}")
    return last.kind, data.get("also", []), data.get("also_count", 0)


def test_a_cancel_says_which_links_it_took_along(ledger: Ledger):
    submit_all(ledger, chained(link("second"), link("third")))

    ledger.do(cancel, Asked(SYSTEM, "first"))

    assert also(ledger, "first") == ("cancelled", ["second", "third"], 2)


@pytest.mark.parametrize(
    ("report", "kind"), [(failure, "failed"), (lambda job: outcome(job, State.CANCELLED, Kind.CANCELLED), "cancelled")]
)
def test_the_end_of_a_job_that_ran_says_which_links_it_took_along(ledger: Ledger, report, kind):
    submit_all(ledger, chained(link("second"), link("third")))

    end(ledger, report(take_one(ledger)))

    assert also(ledger, "first") == (kind, ["second", "third"], 2)


def test_what_was_given_up_long_ago_is_not_taken_along_again(ledger: Ledger):
    submit_all(ledger, chained(link("second")))
    end(ledger, failure(take_one(ledger)))
    ledger.do(reopen, Asked(SYSTEM, "first"))

    ledger.do(cancel, Asked(SYSTEM, "first"))

    assert also(ledger, "first") == ("cancelled", [], 0)


def test_of_many_links_a_hundred_are_named_and_all_are_counted(ledger: Ledger):
    submit_all(ledger, chained(*(link(f"link{n}") for n in range(250))))

    ledger.do(cancel, Asked(SYSTEM, "first"))

    assert also(ledger, "first") == ("cancelled", [f"link{n}" for n in range(100)], 250)


def test_a_cancel_in_a_batch_says_what_it_took_along_and_the_others_do_not(ledger: Ledger):
    other = submission()
    submit_all(ledger, chained(link("second")), other)

    with ledger.transaction() as tx:
        cancel(tx, [Asked(SYSTEM, other.id), Asked(SYSTEM, "first")])

    assert (also(ledger, "first")[2], also(ledger, other.id)[2]) == (1, 0)


def test_a_member_of_a_chord_takes_its_body_along_with_the_links_behind_it(ledger: Ledger):
    behind = Message('{"task":"add"}', "{}", f'[[{MARK}],{{}},{{"chain":{as_json([link("last")])}}}]')
    ledger.do(open_chord, Chord("chord", size=2, body=(body(),)))
    ledger.do(open_chord, Chord("other", size=2, body=(submission(id="sum", message=behind, existing_ok=True),)))
    first, second, third = (accept(ledger, chord=chord, group=chord) for chord in ("chord", "chord", "other"))

    for id in (first, second, third):
        ledger.do(cancel, Asked(SYSTEM, id))

    assert also(ledger, first) == ("cancelled", ["body"], 1)
    assert also(ledger, second) == ("cancelled", [], 0)
    assert also(ledger, third) == ("cancelled", ["sum", "last"], 2)


def test_a_body_that_is_itself_a_member_takes_the_next_body_along(ledger: Ledger):
    inner = submission(id="inner", message=body().message, chord="outer", group="outer", existing_ok=True)
    ledger.do(open_chord, Chord("outer", size=1, body=(body("outermost"),)))
    ledger.do(open_chord, Chord("chord", size=1, body=(inner,)))
    id = accept(ledger, chord="chord", group="chord")

    end(ledger, failure(take_one(ledger)))

    assert also(ledger, id) == ("failed", ["inner", "outermost"], 2)
