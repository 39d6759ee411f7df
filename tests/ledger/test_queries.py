"""The hot statements use an index: whatever is caught on its way is explained, and may not scan or sort all jobs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conformance.moves import BOOM, accept, begin, end, failure, retry, running, submission, submit_all, success, take
from databases import on_sqlite

from celeriac import clock
from celeriac.access import SYSTEM, Principal
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.jobs import Claimed, Filter, Kind, Note
from celeriac.ledger import Asked, Ledger, cancel, note, pruning, read, reopen, stale, upkeep
from celeriac.ledger.pruning import Ended
from ledger.plans import caught, plan

pytestmark = on_sqlite  # whose planner keeps no statistics, and is told what to use
ANN = Principal("ann", PERMISSIONS[Role.SUBMITTER])
# A walk along a partial index touches only jobs that wait, run or have ended.
PARTIAL = re.compile("SCAN jobs USING (COVERING )?INDEX jobs_(waiting|due|running|expiring|finished)")
LARGE = ("jobs", "payloads", "events", "tags", "chords", "chord_parts", "idempotency", "unique_keys", "batches")


def faults(lines: list[str]) -> list[str]:
    """What is wrong with a query plan: a walk through a large table, a sort, or the index of all jobs in a state."""
    return [
        line
        for line in lines
        if (re.match(rf"SCAN ({'|'.join(LARGE)})\b", line) and not PARTIAL.match(line))
        or "TEMP B-TREE FOR ORDER BY" in line
        or "AUTOMATIC" in line
    ]  # fmt: skip


@contextmanager
def explained(ledger: Ledger, faults: Callable[[list[str]], list[str]] = faults) -> Iterator[list[str]]:
    """Catch statements; afterwards, each that is badly planned is in the list."""
    found: list[str] = []
    with caught() as statements:
        yield found
    assert statements
    for statement, parameters in statements:
        found += [f"{told}: {statement}" for told in faults(plan(ledger, statement, parameters))]


def in_one(ledger: Ledger, step: Callable[..., Any], *arguments: Any) -> Any:
    with ledger.transaction() as tx:
        return step(tx, *arguments)


@pytest.fixture
def busy(ledger: Ledger) -> dict[str, Claimed]:
    """Jobs in many states, and three that run."""
    submit_all(ledger, *(submission(tags=("red",), queue=f"q{n % 3}") for n in range(30)))
    submit_all(ledger, submission(run_at=clock.micros() + 10**9), submission(expires_at=clock.micros() + 10**9))
    end(ledger, success(running(ledger, queue="other")))
    return {name: running(ledger, queue=f"only-{name}") for name in ("one", "two", "three")}


MOVES: dict[str, Callable[[Ledger, dict[str, Claimed]], Any]] = {
    "submit": lambda ledger, jobs: accept(ledger, idempotency_key="k", fingerprint="f", tags=("red",)),
    "claim": lambda ledger, jobs: take(ledger, 5, queues=("q0", "q1")),
    "start": lambda ledger, jobs: begin(ledger, jobs["one"]),
    "note": lambda ledger, jobs: ledger.do(note, Note(jobs["one"].key, 1, 1, Kind.PROGRESS, {"value": 1})),
    "finish": lambda ledger, jobs: end(ledger, success(jobs["one"]), failure(jobs["two"]), retry(jobs["three"])),
    "cancel": lambda ledger, jobs: ledger.do(cancel, Asked(SYSTEM, accept(ledger))),
    "reopen": lambda ledger, jobs: ledger.do(reopen, Asked(SYSTEM, accept(ledger, failure=BOOM))),
    "due": lambda ledger, jobs: in_one(ledger, upkeep.fall_due),
    "expire": lambda ledger, jobs: in_one(ledger, upkeep.expire),
    "next due": lambda ledger, jobs: upkeep.next_due(ledger),
    "old jobs": lambda ledger, jobs: pruning.old_jobs(ledger, Ended(1, 1), clock.micros(), 10),
    "first events": lambda ledger, jobs: pruning.first_with_events(ledger, clock.micros() + 10**9),
    "prune jobs": lambda ledger, jobs: in_one(ledger, pruning.prune_jobs, [jobs["one"].key], clock.micros()),
    "prune events": lambda ledger, jobs: in_one(ledger, pruning.prune_events, [jobs["one"].key], clock.micros()),
    "find stale": lambda ledger, jobs: [stale.stale(ledger, walk, walk.start, 1, 1) for walk in stale.WALKS],
    "drop stale": lambda ledger, jobs: [in_one(ledger, stale.drop, walk, [], 1, 1) for walk in stale.WALKS],
    "job": lambda ledger, jobs: read.job(ledger, SYSTEM, jobs["one"].id),
    "history": lambda ledger, jobs: read.history(ledger, SYSTEM, jobs["one"].id, 0, 10),
    "ended": lambda ledger, jobs: read.ended(ledger, [jobs["one"].id]),
    "cancels": lambda ledger, jobs: read.cancels(ledger, "w"),
    "any queued": lambda ledger, jobs: read.any_queued(ledger, ["q0", "q1"]),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
def test_a_hot_statement_uses_an_index(ledger: Ledger, busy, move: str):
    with explained(ledger) as found:
        MOVES[move](ledger, busy)

    assert found == []


@pytest.mark.parametrize("move", [name for name in MOVES if name not in ("claim", "any queued")])
def test_a_move_of_one_job_does_not_look_at_all_jobs_of_its_state(ledger: Ledger, busy, move: str):
    with explained(ledger, lambda lines: [line for line in lines if "jobs_kind" in line]) as found:
        MOVES[move](ledger, busy)

    assert found == []


def test_a_rescue_looks_only_at_what_runs(ledger: Ledger, busy):
    with explained(ledger, lambda lines: [line for line in lines if line.startswith("SCAN jobs")]) as found:
        in_one(ledger, upkeep.rescue)
        upkeep.any_orphan(ledger)

    assert {line.partition(":")[0] for line in found} == {"SCAN jobs USING INDEX jobs_running"}


def test_the_workers_jobs_are_counted_along_an_index(ledger: Ledger, busy):
    with caught() as statements:
        read.all_workers(ledger)

    told = [line for statement, parameters in statements for line in plan(ledger, statement, parameters)]
    assert "SCAN jobs USING INDEX jobs_running" in told
    assert "USE TEMP B-TREE FOR GROUP BY" not in told


KEYS = "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
RANGES = {
    "everything": ({}, KEYS),
    "state": ({"states": ("queued",)}, "jobs_kind (state=? AND queue=? AND task=? AND key>? AND key<?)"),
    "task": ({"tasks": ("add",)}, "jobs_kind (state=? AND queue=? AND task=? AND key>? AND key<?)"),
    "owner": ({"owners": ("ann",)}, "jobs_owner (owner=? AND key>? AND key<?)"),
    "tag": ({"tags": ("red",)}, "sqlite_autoindex_tags_1 (tag=? AND job>? AND job<?)"),
    "batch": ({"batches": ("b",)}, "jobs_batch (batch=? AND rowid>? AND rowid<?)"),
    "time": ({"since": 1, "until": 10**18}, KEYS),
    "an error": ({"q": "ValueError"}, "jobs_kind (state=? AND queue=? AND task=? AND key>? AND key<?)"),
    "an id": ({"q": "019"}, "sqlite_autoindex_jobs_1 (id>? AND id<?)"),
}
# What a page does beside: rows by their keys, one look for each id or tag, halving, and merging what was found.
BESIDE = re.compile(
    r"SEARCH jobs( USING INTEGER PRIMARY KEY \(rowid(=|>)\?\))?|SEARCH tags USING .*|SEARCH jobs .*autoindex_jobs_1 .*"
    r"|SCAN (json_each|k) VIRTUAL .*|SCAN (counts|count_deltas|entries|found|halves|CONSTANT ROW|\(subquery-2\))"
    r"|USE TEMP B-TREE FOR (DISTINCT|ORDER BY|GROUP BY)|.*SUBQUERY.*|CO-ROUTINE .*|COMPOUND QUERY|UNION ALL|SETUP"
    r"|RECURSIVE STEP"
)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("after", [None, "k99"])
def test_a_page_is_read_from_ranges_of_an_index(ledger: Ledger, busy, name: str, after: str | None):
    accept(ledger, failure=BOOM)
    filter, index = RANGES[name]
    with caught() as statements:
        read.page(ledger, SYSTEM, Filter(**filter), after, 10)

    told = [line for statement, parameters in statements for line in plan(ledger, statement, parameters)]
    assert [line for line in told if index in line]
    assert [line for line in told if index not in line and not BESIDE.fullmatch(line)] == []


def test_ones_own_jobs_are_read_from_ranges_of_an_index(ledger: Ledger, busy):
    with caught() as statements:
        read.page(ledger, ANN, Filter(states=("queued",), tags=("red",)), None, 10)

    told = {line for statement, parameters in statements for line in plan(ledger, statement, parameters)}
    assert "SEARCH jobs USING COVERING INDEX jobs_owner (owner=? AND key>? AND key<?)" in told
    assert not [line for line in told if re.match("SCAN (jobs|tags)", line)]


def test_the_oracle_notices_a_scan_and_a_sort(ledger: Ledger):
    with explained(ledger) as found, ledger.reading() as connection:
        connection.exec_driver_sql("SELECT id FROM jobs WHERE cost = 1 ORDER BY args")

    assert [line.partition(":")[0] for line in found] == ["SCAN jobs", "USE TEMP B-TREE FOR ORDER BY"]
