"""Purging a queue, and claims of tasks with a rate limit."""

from celeriac import clock
from celeriac.jobs import ClaimRequest
from celeriac.ledger import Ledger, claim, nodes, purge, read
from celeriac.ledger.sql import as_json
from celeriac.states import State
from conformance.moves import WORKER, accept, counted, kinds, running, state_of, take
from conformance.test_nodes import NODE


def test_a_purge_cancels_what_waits_in_one_queue(ledger: Ledger):
    runs = running(ledger).id
    waits = [accept(ledger), accept(ledger, run_at=clock.micros() + 60_000_000)]
    other = accept(ledger, queue="other")
    with ledger.transaction() as tx:
        assert purge(tx, "default") == 2

    assert [state_of(ledger, id) for id in waits] == [State.CANCELLED] * 2
    assert (state_of(ledger, runs), state_of(ledger, other)) == (State.RUNNING, State.QUEUED)
    assert kinds(ledger, waits[0])[-1] == "cancelled"
    counted(ledger)


def test_a_purge_leaves_alone_what_is_only_observed(ledger: Ledger):
    id = accept(ledger, observed=True)
    with ledger.transaction() as tx:
        assert purge(tx, "default") == 0

    assert state_of(ledger, id) is State.QUEUED


def test_a_purge_goes_step_by_step(ledger: Ledger):
    for _ in range(5):
        accept(ledger)
    with ledger.transaction() as tx:
        assert [purge(tx, "default", 2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_claim_takes_one_of_each_limited_task_and_fills_up_with_the_rest(ledger: Ledger):
    for task in ["slow", "slow", "slower", "slower", "add", "add", "add"]:
        accept(ledger, task=task)
    request = ClaimRequest(WORKER, ("default",), as_json(["add"]), 4, one_each=("slow", "slower"))

    assert [job.task for job in ledger.do(claim, request)] == ["slow", "slower", "add", "add"]


def test_a_claim_keeps_its_limit_with_limited_tasks_too(ledger: Ledger):
    for task in ["slow", "slower", "add"]:
        accept(ledger, task=task)
    request = ClaimRequest(WORKER, ("default",), as_json(["add"]), 1, one_each=("slow", "slower"))

    assert [job.task for job in ledger.do(claim, request)] == ["slow"]
    assert [job.task for job in take(ledger, 5)] == ["add"]


def test_a_worker_that_consumes_other_queues_now_is_shown_so(ledger: Ledger):
    ledger.do(nodes.register, NODE)
    ledger.do(nodes.revise, nodes.Shape(NODE.id, ("late",), 7))

    [worker] = read.all_workers(ledger)
    assert (worker.queues, worker.concurrency) == (("late",), 7)
