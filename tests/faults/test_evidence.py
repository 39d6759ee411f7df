"""The evidence of a run speaks when it should: each rule of evidence.py, broken by hand."""

import json
import time

import pytest
from conformance.moves import accept, end, given_back, retry, success, take_one

from celeriac.jobs import Worker
from celeriac.ledger import Ledger, nodes
from faults.cast import Hurt
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


def given_back_by(ledger: Ledger, pid: int, **data: object) -> str:
    """The id of a job whose first attempt was taken from this process."""
    ledger.do(nodes.register, Worker("w", "w@h", "h", pid, (), (), 1, "prefork", "1", 0, 0, None, None))
    id = accept(ledger)
    end(ledger, given_back(take_one(ledger, worker="w"), data={"attempt": 1, **data}))
    return id


HURT = Hurt(7, 0.0)
LATER = Hurt(7, 32_503_680_000.0)
OVER = Hurt(7, 0.0, 1.0)


@pytest.mark.parametrize("hurts", [(), (Hurt(8, 0.0),), (LATER,), (OVER,)])
def test_a_job_that_is_taken_from_a_worker_that_is_well_is_told(ledger: Ledger, hurts: tuple[Hurt, ...]):
    id = given_back_by(ledger, 7)
    found = evidence(**{id: [1, 2]})
    found.hurts = hurts
    [wrong] = found.violations(ledger)

    assert wrong.startswith("I5")
    assert "was well" in wrong


def test_a_job_that_runs_again_after_a_loss_or_by_its_own_wish_is_counted_and_fine(ledger: Ledger):
    lost = given_back_by(ledger, 7)
    end(ledger, success(take_one(ledger)))
    asked = accept(ledger)
    end(ledger, retry(take_one(ledger), data={"attempt": 1}))
    found = evidence(**{lost: [1, 2], asked: [1, 2]})
    found.hurts = [HURT]

    assert found.violations(ledger) == []
    assert (found.twice, found.explained, found.cut_off) == (1, 1, 0)


def test_a_job_whose_child_has_ended_runs_again_and_that_is_fine(ledger: Ledger):
    found = evidence(**{given_back_by(ledger, 7, ended="signal 9"): [1, 2]})

    assert found.violations(ledger) == []
    assert (found.twice, found.explained) == (1, 1)


def test_a_job_whose_worker_was_cut_off_from_the_ledger_is_counted_by_itself(ledger: Ledger):
    found = evidence(**{given_back_by(ledger, 7): [1, 2]})
    found.outages = [(0.0, time.time())]

    assert found.violations(ledger) == []
    assert (found.twice, found.explained, found.cut_off) == (1, 0, 1)


def test_a_submit_that_made_two_jobs_is_told(ledger: Ledger):
    for _ in range(2):
        accept(ledger, tags=("once-a",))
    accept(ledger, tags=("once-b",))
    [wrong] = evidence().violations(ledger)

    assert wrong == "key: one submit made 2 jobs, tagged once-a"


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
