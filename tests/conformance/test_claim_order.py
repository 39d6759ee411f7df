"""Whose jobs a claim takes, and in what order: priorities, turns of owners, age; and how little it looks at."""

import random
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest
from databases import on_postgres
from ledger.plans import caught

from celeriac import clock
from celeriac.jobs import Claimed, ClaimRequest
from celeriac.ledger import Ledger, claim, nodes
from celeriac.ledger.moves.claim import OWNERS, share
from celeriac.ledger.sql import as_json
from conformance.moves import SECOND, accept, submission, submit_all, take
from conformance.test_nodes import NODE


def fill(ledger: Ledger, *groups: tuple[int, str, str, int]) -> None:
    """Submit jobs: (priority, task, owner, how many)."""
    for priority, task, owner, number in groups:
        submit_all(ledger, *(submission(priority=priority, task=task, owner=owner) for _ in range(number)))


class Worker:
    """A worker node as far as claims go: it remembers whose turn it was."""

    def __init__(self, ledger: Ledger, *tasks: str, one_each: tuple[str, ...] = ()) -> None:
        self._ledger = ledger
        self._tasks = as_json(tasks or ("add",))
        self._one_each = one_each
        self._served: dict[str, str] = {}

    def take(self, limit: int) -> list[Claimed]:
        request = ClaimRequest("w1@host/1", ("default",), self._tasks, limit, self._one_each, dict(self._served))
        jobs = self._ledger.do(claim, request)
        self._served.update({job.queue: job.owner for job in jobs})
        return jobs

    def owners(self, limit: int) -> str:
        return " ".join(job.owner for job in self.take(limit))


def test_owners_take_turns_whoever_came_first(ledger: Ledger):
    fill(ledger, (0, "add", "ann", 30), (0, "add", "bob", 3), (0, "add", "cy", 2))

    assert Worker(ledger).owners(9) == "ann bob cy ann bob cy ann bob ann"


def test_the_turns_go_on_where_the_last_claim_ended(ledger: Ledger):
    fill(ledger, *((0, "add", owner, 5) for owner in ("ann", "bob", "cy")))
    worker = Worker(ledger)

    assert [worker.owners(2) for _ in range(4)] == ["ann bob", "cy ann", "bob cy", "ann bob"]


def test_of_an_owner_the_oldest_comes_first_whatever_its_task(ledger: Ledger):
    ids = [accept(ledger, task=task) for task in ("mul", "add", "sub", "add", "mul", "sub")]
    worker = Worker(ledger, "add", "mul", "sub")

    assert [job.id for limit in (4, 9) for job in worker.take(limit)] == ids


def test_a_higher_priority_goes_before_everybodys_turn(ledger: Ledger):
    fill(ledger, (0, "add", "ann", 2), (5, "add", "bob", 3), (5, "mul", "bob", 1), (9, "add", "cy", 1))

    assert Worker(ledger, "add", "mul").owners(9) == "cy bob bob bob bob ann ann"


def test_what_a_worker_may_not_take_is_stepped_over_at_every_priority(ledger: Ledger):
    fill(ledger, (9, "later", "ann", 3), (9, "zoom", "bob", 3), (5, "later", "bob", 3), (5, "add", "ann", 1))
    fill(ledger, (5, "zoom", "ann", 3), (0, "later", "cy", 1), (0, "add", "cy", 1))

    assert Worker(ledger).owners(9) == "ann cy"
    assert Worker(ledger).take(9) == []


def test_one_each_of_a_limited_task_is_found_behind_everything(ledger: Ledger):
    fill(ledger, (5, "add", "ann", 5), (0, "slow", "bob", 3), (0, "slow", "cy", 3))

    taken = Worker(ledger, "add", one_each=("slow",)).take(3)

    assert [(job.task, job.owner) for job in taken] == [("slow", "bob"), ("add", "ann"), ("add", "ann")]


def test_what_has_expired_hides_nothing(ledger: Ledger, fake_clock):
    for owner in ("ann", "bob"):
        submit_all(ledger, *(submission(owner=owner, priority=5, expires_at=clock.micros() + SECOND) for _ in range(3)))
    fill(ledger, (5, "add", "cy", 1), (0, "add", "ann", 1))
    fake_clock.advance(2)

    assert Worker(ledger).owners(9) == "cy ann"


def test_nobody_starves_among_more_owners_than_are_looked_at(ledger: Ledger):
    owners = [f"owner {number:03}" for number in range(3 * OWNERS)]
    submit_all(ledger, *(submission(owner=owner) for owner in owners for _ in range(3)))
    worker = Worker(ledger)

    served = [
        owner for _ in range(3) for owner in (job.owner for n in range(len(owners) // 4) for job in worker.take(4))
    ]

    assert served == owners * 3


def test_many_owners_of_several_tasks_get_the_same_share(ledger: Ledger):
    owners = [f"owner {number:03}" for number in range(3 * OWNERS)]
    tasks = {owner: ("add", "mul")[: 1 + number % 2] for number, owner in enumerate(owners)}
    submit_all(ledger, *(submission(owner=owner, task=task) for owner in owners for task in tasks[owner] * 2))
    worker = Worker(ledger, "add", "mul")

    served = [job.owner for _ in range(len(owners) // 4) for job in worker.take(4)]

    assert Counter(served) == Counter(owners)


@dataclass
class Row:
    """A waiting job as the rule sees it."""

    key: int
    priority: int
    task: str
    owner: str


def ruled(rows: Iterable[Row], tasks: tuple[str, ...], most: int, after: str) -> list[int]:
    """The keys that a claim has to take, by looking at everything."""
    taken: list[Row] = []
    for priority in sorted({row.priority for row in rows}, reverse=True):
        level = [row for row in rows if row.priority == priority and row.task in tasks]
        taken += share(level, most - len(taken), after)
    return [row.key for row in taken]


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_is_taken_as_if_everything_had_been_looked_at(ledger: Ledger, seed: int):
    dice = random.Random(seed)
    owners = [f"o{number}" for number in range(dice.choice((1, 2, 5, OWNERS - 1)))]
    for _ in range(4):
        fill(ledger, *((dice.choice((0, 0, 5)), dice.choice("abc"), dice.choice(owners), 1) for _ in range(12)))
    with ledger.reading() as connection:
        rows = [Row(*row) for row in connection.exec_driver_sql("SELECT key, priority, task, owner FROM jobs")]
    tasks, after = tuple(dice.sample("abcd", 2)), ""
    while rows:
        most = dice.randint(1, 9)
        request = ClaimRequest("w", ("default",), as_json(tasks), most, (), {"default": after})
        taken = ledger.do(claim, request)
        assert [job.key for job in taken] == ruled(rows, tasks, most, after)
        if not taken:
            break
        after = taken[-1].owner
        rows = [row for row in rows if row.key not in {job.key for job in taken}]


def test_a_share_goes_round_and_begins_behind_the_last():
    rows = [Row(key, 0, "add", owner) for key, owner in enumerate("aaabbc")]

    assert [row.owner for row in share(rows, 5, "a")] == ["b", "c", "a", "b", "a"]
    assert [row.key for row in share(rows, 9, "")] == [0, 3, 5, 1, 4, 2]


def test_a_worker_that_was_given_up_gets_nothing_of_several_owners_either(ledger: Ledger):
    fill(ledger, (0, "add", "ann", 2), (0, "add", "bob", 2))
    ledger.do(nodes.register, NODE)
    with ledger.transaction() as tx:
        nodes.lose(tx, [NODE.id])

    assert take(ledger, 4, worker=NODE.id) == []


@on_postgres
def test_workers_that_claim_at_the_same_instant_share_several_groups_without_waiting(ledger: Ledger):
    fill(ledger, *((0, "add", owner, 10) for owner in ("ann", "bob", "cy", "dee")))
    start = Barrier(8)

    def work(number: int) -> list[int]:
        start.wait()
        return [job.key for job in take(ledger, 5, worker=f"w{number}")]

    with ThreadPoolExecutor(8) as pool:
        taken = [key for keys in pool.map(work, range(8)) for key in keys]

    assert len(taken) == len(set(taken)) == 40


@on_postgres
def test_a_claim_takes_what_others_leave_of_a_group_they_are_at(ledger: Ledger):
    fill(ledger, (0, "add", "ann", 3), (0, "add", "bob", 3))
    with ledger.transaction() as tx:
        [first] = claim(tx, [ClaimRequest("w1", ("default",), '["add"]', 4)])
        second = take(ledger, 4, worker="w2")

    assert (len(first), len(second)) == (4, 2)
    assert {job.key for job in first}.isdisjoint(job.key for job in second)


def test_how_many_statements_a_claim_takes_does_not_depend_on_how_much_waits(ledger: Ledger):
    asked = []
    for number in (1, 20):
        fill(ledger, *((9, f"other {kind}", owner, number) for kind in range(number) for owner in ("ann", "bob")))
        fill(ledger, (0, "add", "ann", 4 * number), (0, "add", "bob", 4 * number))
        with caught() as statements:
            assert Worker(ledger).owners(4) == "ann bob ann bob"
        asked.append([statement.split()[0] for statement, _ in statements])

    assert asked[0] == asked[1]
    assert len(asked[0]) <= 5
