"""The life of a job: its states, and the only table of moves between them.

Whoever writes a move in the ledger takes it from here, and `docs/concepts.md`
is drawn from MOVES. Celery's names for the same states are mapped in
`worker/backend.py` and nowhere else. Next: jobs.py.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a job stands; the value is what the API, the CLI and the database show."""

    SCHEDULED = "scheduled"  # waits for its time
    QUEUED = "queued"  # accepted, may be sent
    RUNNING = "running"  # claimed by a worker; `started_at` says whether user code runs
    RETRYING = "retrying"  # waits for its next attempt
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
WAITING = frozenset({State.SCHEDULED, State.QUEUED, State.RETRYING})

# state -> {next state: the verb that moves it there}
MOVES: dict[State, dict[State, str]] = {
    State.SCHEDULED: {State.QUEUED: "fall due", State.CANCELLED: "cancel"},
    State.QUEUED: {State.RUNNING: "claim", State.CANCELLED: "cancel"},
    State.RUNNING: {
        State.SUCCEEDED: "succeed",
        State.FAILED: "fail",
        State.CANCELLED: "cancel",
        State.RETRYING: "retry",
        State.QUEUED: "give back, rescue",
    },
    State.RETRYING: {State.QUEUED: "fall due", State.CANCELLED: "cancel", State.FAILED: "give up"},
    State.SUCCEEDED: {},
    State.FAILED: {State.QUEUED: "reopen"},
    State.CANCELLED: {State.QUEUED: "reopen"},
}


def is_final(state: str) -> bool:
    """Say whether no automatic move leaves this state."""
    return state in FINAL


def may_move(before: State, after: State) -> bool:
    """Say whether the table allows this move."""
    return after in MOVES[before]


def diagram() -> str:
    """Return MOVES as a Mermaid state diagram, as `docs/concepts.md` shows it."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit", "    [*] --> scheduled: submit for later"]
    for before, moves in MOVES.items():
        lines += [f"    {before} --> {after}: {verb}" for after, verb in moves.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)
