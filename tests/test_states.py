"""The table of moves: what is final stays, everything can end, and a job gets nowhere by a way that is not in it."""

import re

import pytest

from celeriac.states import FINAL, MOVES, WAITING, State, diagram, is_final, may_move


def reachable(start: State) -> set[State]:
    """Every state that moves lead to from `start`."""
    found: set[State] = set()
    ahead = [start]
    while ahead:
        for state in MOVES[ahead.pop()]:
            if state not in found:
                found.add(state)
                ahead.append(state)
    return found


def test_every_state_is_waiting_running_or_final():
    assert WAITING | FINAL | {State.RUNNING} == set(State)
    assert not WAITING & FINAL


def test_every_state_has_its_moves():
    assert set(MOVES) == set(State)


def test_no_move_leads_from_a_state_to_itself():
    assert [state for state in State if may_move(state, state)] == []


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_every_job_can_end_in_each_final_state(state: State):
    assert reachable(state) >= FINAL


def test_only_a_person_leads_out_of_a_final_state():
    assert {verb for state in FINAL for verb in MOVES[state].values()} == {"reopen"}
    assert MOVES[State.SUCCEEDED] == {}


def test_a_job_runs_only_by_a_claim():
    assert [(state, moves[State.RUNNING]) for state, moves in MOVES.items() if State.RUNNING in moves] == [
        (State.QUEUED, "claim")
    ]


def test_only_what_runs_succeeds_or_fails():
    for outcome in (State.SUCCEEDED, State.RETRYING):
        assert [state for state in State if may_move(state, outcome)] == [State.RUNNING]
    # A job that goes on as a canvas waits for that as `retrying`, and fails with it.
    assert [state for state in State if may_move(state, State.FAILED)] == [State.RUNNING, State.RETRYING]


def test_a_state_is_its_name_everywhere():
    assert [str(state) for state in State] == [
        "scheduled", "queued", "running", "retrying", "succeeded", "failed", "cancelled",
    ]  # fmt: skip
    assert is_final("failed")
    assert not is_final("nonsense")


def test_the_diagram_shows_every_move_and_no_other():
    drawn = set(re.findall(r"^    (\w+) --> (\w+): ", diagram(), re.MULTILINE))

    assert drawn == {(str(before), str(after)) for before, moves in MOVES.items() for after in moves}
