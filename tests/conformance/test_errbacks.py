"""Error callbacks of jobs that fail where no app's code is at hand: a job is submitted that calls them, once."""

from dataclasses import replace

import pytest

from celeriac.jobs import Chord, ErrorCode, Message, Submission
from celeriac.ledger import Ledger, open_chord, upkeep
from celeriac.ledger.sql import as_json
from conformance.moves import accept, end, failure, retry, running, select, submission, take, take_one

ERRBACK = {"task": "told", "args": [], "kwargs": {}, "options": {}}


def with_errback(**changes) -> Submission:
    embed = {"callbacks": None, "errbacks": [ERRBACK], "chain": None, "chord": None}
    return submission(message=Message("{}", "{}", as_json([[], {}, embed])), **changes)


def calls(ledger: Ledger) -> list[str]:
    return [args for (args,) in select(ledger, "SELECT args FROM jobs WHERE task = 'celery.errbacks'")]


def test_the_body_of_a_chord_has_its_called_once_however_many_members_fail(ledger: Ledger):
    ledger.do(open_chord, Chord("c", size=2, body=(with_errback(id="body"),)))
    for _ in range(2):
        accept(ledger, chord="c")
    end(ledger, *(failure(claim) for claim in take(ledger, 2)))

    assert calls(ledger) == ['{"id":"body"}']


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_job_that_loses_its_workers_has_its_called_when_it_is_given_up(ledger: Ledger, deaths: int):
    ledger.max_deaths = 2
    message = with_errback().message
    for death in range(deaths):
        claim = running(ledger, message=message) if death == 0 else take_one(ledger)
        lost = retry(claim, -1)
        end(ledger, replace(lost, death=True, failure=replace(lost.failure, code=ErrorCode.WORKER_LOST)))
        with ledger.transaction() as tx:
            upkeep.fall_due(tx)

    assert len(calls(ledger)) == deaths - 1


def test_a_failure_that_a_worker_has_seen_calls_nobody_again(ledger: Ledger):
    end(ledger, failure(running(ledger, message=with_errback().message)))

    assert calls(ledger) == []


def test_a_body_without_error_callbacks_calls_nobody(ledger: Ledger):
    ledger.do(open_chord, Chord("c", size=1, body=(submission(id="body"),)))
    accept(ledger, chord="c")
    end(ledger, failure(take_one(ledger)))

    assert calls(ledger) == []
