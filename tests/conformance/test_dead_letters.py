"""Dead letters: what cannot become a job is kept; what names a job that is there is not dead."""

import pytest

from celeriac.ledger import Ledger
from celeriac.ledger.dead_letters import DeadLetter, bury
from conformance.moves import accept, select

KEPT = "SELECT queue, reason, message FROM dead_letters ORDER BY position"


def test_what_cannot_become_a_job_is_kept_with_its_reason(ledger: Ledger):
    letters = [DeadLetter("q", f"It is no JSON, {number}.", '{"body":"x"}') for number in range(3)]
    with ledger.transaction() as tx:
        assert bury(tx, letters) == [None] * 3

    assert select(ledger, KEPT) == [(each.queue, each.reason, each.message) for each in letters]


def test_a_hint_is_dead_only_if_its_job_is_not_there(ledger: Ledger):
    id = accept(ledger)
    with ledger.transaction() as tx:
        bury(tx, [DeadLetter("q", "gone", "{}", id), DeadLetter("q", "gone", "{}", "another")])

    assert select(ledger, KEPT) == [("q", "gone", "{}")]


@pytest.mark.parametrize("size", [10, 70_000, 3_000_000])
def test_a_large_letter_is_kept_whole(ledger: Ledger, size: int):
    text = '{"body":"' + "é" * size + '"}'
    with ledger.transaction() as tx:
        bury(tx, [DeadLetter("q", "large", text), DeadLetter("q", "small", "{}")])

    assert select(ledger, KEPT) == [("q", "large", text), ("q", "small", "{}")]
