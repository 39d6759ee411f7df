"""The evidence of a run speaks when it should: each rule of evidence.py, broken by hand."""

import json

import pytest
from conformance.moves import accept, end, given_back, retry, success, take_one

from celeriac.ledger import Ledger
from faults.evidence import Evidence


def evidence(*lines: dict, **executions: list[int]) -> Evidence:
    return Evidence(list(lines), {id: [(attempt, 0.0) for attempt in ran] for id, ran in executions.items()})


def line(id: str, *end: object, never_runs: bool = False) -> dict:
    return {"kind": "plain", "ends": {id: list(end)}, "never_runs": never_runs}


@pytest.fixture
def done(ledger: Ledger) -> str:
    """The id of a job that succeeded with 3."""
    id = accept(ledger)
    end(ledger, success(take_one(ledger)))
    return id


def test_a_job_that_ended_as_it_should_is_no_violation(ledger: Ledger, done: str):
    assert evidence(line(done, "succeeded", 3), **{done: [1]}).violations(ledger) == []


@pytest.mark.parametrize(
    ("told", "rule"),
    [(("failed",), "I2"), (("succeeded", 4), "I2")],
)
def test_another_end_or_result_is_told(ledger: Ledger, done: str, told: tuple, rule: str):
    [wrong] = evidence(line(done, *told), **{done: [1]}).violations(ledger)

    assert wrong.startswith(rule)


def test_an_acknowledged_job_that_is_gone_is_told(ledger: Ledger):
    assert evidence(line("no-such", "succeeded")).violations(ledger) == [
        "I1: plain no-such was acknowledged and is gone"
    ]


def test_an_attempt_that_began_twice_is_told(ledger: Ledger, done: str):
    [wrong] = evidence(**{done: [1, 1]}).violations(ledger)

    assert wrong.startswith("I4")


def test_a_job_that_ran_again_although_nothing_was_lost_is_told(ledger: Ledger, done: str):
    [wrong] = evidence(**{done: [1, 2]}).violations(ledger)

    assert wrong.startswith("I5")


def test_a_job_that_runs_again_after_a_loss_or_by_its_own_wish_is_counted_and_fine(ledger: Ledger):
    lost, asked = accept(ledger), accept(ledger)
    end(ledger, given_back(take_one(ledger), data={"attempt": 1}))
    end(ledger, success(take_one(ledger)))
    end(ledger, retry(take_one(ledger), data={"attempt": 1}))
    found = evidence(**{lost: [1, 2], asked: [1, 2]})

    assert found.violations(ledger) == []
    assert (found.twice, found.explained) == (1, 1)


def test_a_job_that_ran_although_its_cancel_was_acknowledged_before_is_told(ledger: Ledger, done: str):
    wrong = evidence(line(done, "succeeded", never_runs=True), **{done: [1]}).violations(ledger)

    assert wrong == [f"cancel: {done} ran although its cancel was acknowledged before"]


def test_two_live_holders_of_one_unique_key_are_told(ledger: Ledger):
    for _ in range(2):
        accept(ledger, tags=("unique-k",))
    [wrong] = evidence().violations(ledger)

    assert wrong.startswith("I6")


def test_what_the_load_was_refused_is_told(ledger: Ledger):
    assert evidence({"kind": "batch", "wrong": "500"}).violations(ledger) == ["batch: 500"]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    whole = json.dumps(line("a", "succeeded"))
    (tmp_path / "acknowledged").write_text(f"{whole}\n{whole[:10]}")

    assert Evidence.of(tmp_path).ids == {"a"}
