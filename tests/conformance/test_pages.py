"""Lists at any size: whatever is asked, and whichever way it is found, the pages hold exactly what the filter says."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import clock
from celeriac.access import SYSTEM, Principal
from celeriac.access.principals import PERMISSIONS, Role
from celeriac.jobs import Filter, Job
from celeriac.ledger import Ledger, pages, ranges, read, upkeep
from conformance.moves import BOOM, SECOND, accept, end, failure, select, submission, submit_all, success, take

ANN = Principal("ann", PERMISSIONS[Role.SUBMITTER])
TASKS = ("add", "mail.send", "mail_bulk", "étude")
QUEUES = ("default", "big")
TAGS = ("red", "reddish", "blue", "100%")


@pytest.fixture
def crowd(ledger: Ledger, fake_clock) -> list[Job]:
    """Two hundred jobs that differ in everything a filter asks for, some ended, some running; newest first."""
    dice = random.Random(7)
    for _ in range(10):
        submit_all(ledger, *(
            submission(
                task=dice.choice(TASKS), queue=dice.choice(QUEUES), owner=dice.choice(("ann", "ann", "bob", "cleo")),
                tags=tuple(dice.sample(TAGS, dice.choice((0, 0, 1, 2)))), batch=dice.choice((None, "b1", "b2")),
                failure=dice.choice((None, None, BOOM)),
                run_at=dice.choice((None, None, None, clock.micros() + SECOND)),
            )
            for _ in range(20)
        ))  # fmt: skip
        fake_clock.advance(7)
    for job in take(ledger, 40, queues=QUEUES, tasks=TASKS):
        if outcome := dice.choice((success, failure, None)):
            end(ledger, outcome(job))
    found, _ = read.page(ledger, SYSTEM, Filter(), None, 500)
    assert len(found) == 200
    return found


def walked(ledger: Ledger, filter: Filter, principal: Principal = SYSTEM, limit: int = 15) -> list[str]:
    """The ids on all pages, in order; a page may be short, but not too long, and the walk must come to an end."""
    ids: list[str] = []
    after = None
    for _ in range(200):
        jobs, after = read.page(ledger, principal, filter, after, limit)
        assert len(jobs) <= limit
        ids += [job.id for job in jobs]
        if after is None:
            return ids
    raise AssertionError("The pages do not end.")


def matches(job: Job, filter: Filter, principal: Principal) -> bool:
    """What a filter means, said once more in Python."""
    q = filter.q or ""
    error = job.failure.type if job.failure and job.state in ("failed", "cancelled", "retrying") else ""
    return (
        principal.sees(job.owner)
        and (not filter.states or job.state in filter.states)
        and (not filter.tasks or job.task in filter.tasks)
        and (not filter.queues or job.queue in filter.queues)
        and (not filter.owners or job.owner in filter.owners)
        and (not filter.tags or bool(set(filter.tags) & set(job.tags)))
        and (not filter.batches or job.batch in filter.batches)
        and (filter.since is None or job.created_at >= filter.since)
        and (filter.until is None or job.created_at < filter.until)
        and any(text.startswith(q) for text in (job.id, job.task, error, *job.tags))
    )


def any_filter(dice: random.Random, crowd: list[Job]) -> Filter:
    """A filter that narrows a list in some of the ways there are."""

    def some(*values: str) -> tuple[str, ...]:
        return tuple(dice.sample(values, dice.randint(1, 2))) if dice.random() < 0.3 else ()

    job = dice.choice(crowd)
    prefixes = (job.id, job.id[:9], job.id[:2], "mail", "mail_", "é", "Value", "red", "1", "_", "%", "none", "add")
    return Filter(
        states=some("queued", "failed", "running", "succeeded", "scheduled"), tasks=some(*TASKS, "nothing"),
        queues=some(*QUEUES, "nowhere"), owners=some("ann", "bob", "nobody"), tags=some(*TAGS, "none"),
        batches=some("b1", "b2", "none"), q=dice.choice(prefixes) if dice.random() < 0.3 else None,
        since=dice.choice(crowd).created_at if dice.random() < 0.2 else None,
        until=dice.choice(crowd).created_at if dice.random() < 0.2 else None,
    )  # fmt: skip


def disagreements(ledger: Ledger, crowd: list[Job], tries: int = 60) -> list[Filter]:
    """Filters whose pages are not what they mean."""
    dice = random.Random(11)
    found = []
    for _ in range(tries):
        filter, principal = any_filter(dice, crowd), dice.choice((SYSTEM, ANN))
        if walked(ledger, filter, principal) != [job.id for job in crowd if matches(job, filter, principal)]:
            found.append(filter)
    return found


# Narrow limits send a page along every way there is: in stretches, job by job, with many jobs or tags of one beginning.
LIMITS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "short stretches": {"STRETCH": 40},
    "too many tags": {"TAGS_MOST": 2},
    "all is dense": {"DENSE": 0.0},
    "nothing is dense": {"DENSE": 2.0},
}


@pytest.mark.parametrize("limits", LIMITS)
def test_the_pages_of_any_filter_hold_what_it_means(ledger: Ledger, crowd, monkeypatch, limits: str):
    for name, value in LIMITS[limits].items():
        monkeypatch.setattr(pages, name, value)

    assert disagreements(ledger, crowd) == []


MUTANTS: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "a condition is forgotten": (pages, "_CONDITIONS", lambda conditions: {**conditions, "tags": "1 = 1"}),
    "a page goes on one job too far": (pages, "_cursor", lambda cursor: lambda key: cursor(key - 1)),
    "a page begins again": (pages, "_cursor", lambda cursor: lambda key: cursor(key + 1)),
    "jobs around a moment are missed": (ranges, "SKEW", lambda skew: -30 * SECOND),
    "errors of one state are missed": (pages, "ILL", lambda ill: ill[1:]),
    "nobody's jobs are everybody's": (pages, "_owners", lambda owners: lambda *_: None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_oracle_notices_a_wrong_page(ledger: Ledger, crowd, monkeypatch, mutant: str):
    where, name, changed = MUTANTS[mutant]
    monkeypatch.setattr(where, name, changed(getattr(where, name)))
    pages._statement.cache_clear()

    try:
        assert disagreements(ledger, crowd, tries=60)
    finally:
        pages._statement.cache_clear()


def test_a_page_without_a_match_leads_on(ledger: Ledger, crowd, monkeypatch):
    monkeypatch.setattr(pages, "STRETCH", 40)
    accept(ledger, owner="dora", tags=("rare",))
    submit_all(ledger, *(submission(owner="dora") for _ in range(100)))

    monkeypatch.setattr(pages, "TAGS_MOST", 0)  # no short way to the tag

    jobs, after = read.page(ledger, SYSTEM, Filter(owners=("dora",), q="rar"), None, 5)
    assert jobs == []
    assert after is not None
    assert len(walked(ledger, Filter(owners=("dora",), q="rar"), limit=5)) == 1


def test_one_page_looks_at_no_more_than_a_stretch(ledger: Ledger, monkeypatch):
    monkeypatch.setattr(pages, "STRETCH", 40)
    submit_all(ledger, *(submission() for _ in range(100)))
    looked: list[int] = []
    chosen = pages._Asked.chosen
    monkeypatch.setattr(pages._Asked, "chosen", lambda *given: [looked.append(len(given[2])), chosen(*given)][1])

    read.page(ledger, SYSTEM, Filter(owners=("ann",), states=("failed",), q="x"), None, 5)
    read.page(ledger, SYSTEM, Filter(owners=("ann",), tasks=("add",), tags=("none",)), None, 5)
    read.page(ledger, SYSTEM, Filter(owners=("ann",), q="none-of-them"), None, 5)

    assert sum(looked) <= 3 * 40


def test_lists_by_state_queue_and_task_are_always_full(ledger: Ledger, crowd, monkeypatch):
    monkeypatch.setattr(pages, "STRETCH", 40)
    for filter in (Filter(states=("failed",)), Filter(queues=("big",)), Filter(states=("queued",), tasks=("add",))):
        wanted = [job for job in crowd if matches(job, filter, SYSTEM)]
        jobs, _ = read.page(ledger, SYSTEM, filter, None, 9)
        assert len(jobs) == min(9, len(wanted))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_ranges_are_read_without_a_gap_however_their_jobs_are_spread(ledger: Ledger, share: float):
    """The share of a kind among all jobs says how far to reach; where its jobs lie together that is wrong."""
    for tasks in (("add",) * 30, ("mail",) * 200, ("add", "mail") * 20):
        submit_all(ledger, *(submission(task=task) for task in tasks))
    wanted = [key for (key,) in select(ledger, "SELECT key FROM jobs WHERE task = 'add' ORDER BY key DESC")]
    source = ranges.Source([ranges.of_places([("queued", "default", "add")], share)])

    for most in (1, 2, 3, 7, 60):
        with ledger.reading() as connection:
            window, found = ranges.ends(connection, None, None, None), []
            while keys := source.keys(connection, window, most):
                found += keys
                window = keys[-1], window[1]
        assert found == wanted


def test_clocks_that_differ_a_little_hide_no_job(ledger: Ledger, fake_clock):
    start = clock.micros()
    for seconds in (0, 100, 95, 105, 99, 200):
        fake_clock.advance((start + seconds * SECOND - clock.micros()) / SECOND)
        accept(ledger, id=f"at-{seconds}")

    for low in (0, 95, 96, 100, 104, 200):
        since, until = start + low * SECOND, start + (low + 5) * SECOND
        wanted = [f"at-{at}" for at in (200, 99, 105, 95, 100, 0) if low <= at < low + 5]
        assert walked(ledger, Filter(since=since, until=until)) == wanted


def test_what_moved_since_the_counts_were_read_is_judged_by_what_it_is_now(ledger: Ledger, monkeypatch):
    """On Postgres each statement sees what was committed before it."""
    accept(ledger, id="moves", run_at=clock.micros() + 1)
    with ledger.reading() as connection:
        before = read.all_counts(connection)
    with ledger.transaction() as tx:
        upkeep.fall_due(tx)
    monkeypatch.setattr(pages, "all_counts", lambda connection: before)

    assert read.page(ledger, SYSTEM, Filter(states=("scheduled",)), None, 5) == ([], None)
    assert select(ledger, "SELECT state FROM jobs") == [("queued",)]


def test_an_empty_ledger_has_one_empty_page(ledger: Ledger):
    for filter in (Filter(), Filter(states=("queued",)), Filter(q="x"), Filter(since=1), Filter(tags=("x",))):
        assert read.page(ledger, SYSTEM, filter, None, 5) == ([], None)


@pytest.mark.parametrize("q", ["\U0010ffff", "a\U0010ffff", "\ud7ff", "'", '"', "\\", "%", "k\x7f"])
def test_any_beginning_can_be_asked_for(ledger: Ledger, q: str):
    accept(ledger, id=f"{q}-one")
    accept(ledger, tags=(f"{q}-tag",))
    accept(ledger)

    assert len(walked(ledger, Filter(q=q))) == 2
