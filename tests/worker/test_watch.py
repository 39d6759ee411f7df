"""The watch cries when a node does nothing though it could, and only then."""

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from conformance.moves import accept
from conformance.test_nodes import NODE
from instance import Instance, instance, until
from nursery import Nursery

from celeriac import clock
from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.ledger import Ledger, nodes, queues, read
from celeriac.states import State
from celeriac.worker import watch as module
from celeriac.worker.lease import Lease
from celeriac.worker.watch import EXIT_CODE, Watch


class Inbox:
    """A hub that answers at once, unless it hangs."""

    hangs = False

    def put(self, action: Any) -> None:
        if not self.hangs:
            action()


class Node:
    """A node with room, that does nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.id, self.inbox, self.stopping, self.progress = ledger, NODE.id, Inbox(), False, 0
        self.queues = frozenset({"default"})
        self.history = SimpleNamespace(patient=True)
        self.settings = SimpleNamespace(shutdown_seconds=30)
        self.pace = SimpleNamespace(free=json.dumps(["add"]), turns=lambda: ())
        self.slots, self.waits = 2, False
        ledger.do(nodes.register, NODE)

    def room(self) -> int:
        return self.slots

    def waits_for_pool(self) -> bool:
        return self.waits


@pytest.fixture
def node(ledger: Ledger) -> Node:
    return Node(ledger)


@pytest.fixture
def watch(node: Node) -> Watch:
    return Watch(node, 60, 0)  # type: ignore[arg-type]


def look_for(watch: Watch, seconds: int, fake_clock, meanwhile: Any = lambda: None) -> bool:
    """Look after every beat for so long; say whether the node was ever called stuck."""
    stuck = False
    for _ in range(seconds // 2):
        meanwhile()
        watch.look()
        stuck |= watch.stuck
        fake_clock.advance(2)
    return stuck


def test_a_node_that_claims_nothing_while_a_job_waits_is_stuck_until_it_goes_on(
    ledger: Ledger, node: Node, watch: Watch, fake_clock, caplog
):
    accept(ledger)

    assert not look_for(watch, 60, fake_clock)
    assert look_for(watch, 30, fake_clock)
    [worker] = read.all_workers(ledger)
    assert worker.stuck_at is not None
    assert "stuck: it claims nothing, though there are jobs that it could run" in caplog.text

    node.progress += 1
    look_for(watch, 12, fake_clock)
    [worker] = read.all_workers(ledger)
    assert (watch.stuck, worker.stuck_at) == (False, None)


def test_a_hub_that_hangs_is_noticed_though_no_job_waits(node: Node, watch: Watch, fake_clock, caplog):
    node.inbox.hangs = True

    assert look_for(watch, 100, fake_clock)
    assert "its event loop does not answer" in caplog.text


def test_a_pool_that_does_not_begin_is_noticed(node: Node, watch: Watch, fake_clock, caplog):
    node.waits, node.slots = True, 0

    assert look_for(watch, 100, fake_clock)
    assert "its pool does not begin" in caplog.text


NO_ALARM = {
    "nothing waits": lambda ledger, node: None,
    "the queue is paused": lambda ledger, node: (accept(ledger), ledger.do(queues.pause, "default")),
    "the task is unknown here": lambda ledger, node: accept(ledger, task="other"),
    "the queue is another's": lambda ledger, node: accept(ledger, queue="other"),
    "the task is out of turn": lambda ledger, node: (accept(ledger), setattr(node.pace, "free", "[]")),
    "the job is only observed": lambda ledger, node: accept(ledger, observed=True),
    "the job has expired": lambda ledger, node: accept(ledger, expires_at=clock.micros()),
    "the job is not due": lambda ledger, node: accept(ledger, run_at=clock.micros() + 10**10),
    "every slot is taken": lambda ledger, node: (accept(ledger), setattr(node, "slots", 0)),
    "it is stopping": lambda ledger, node: (accept(ledger), setattr(node, "stopping", True)),
}


@pytest.mark.parametrize("why", NO_ALARM)
def test_there_is_no_alarm_when(why: str, ledger: Ledger, node: Node, watch: Watch, fake_clock):
    NO_ALARM[why](ledger, node)

    assert not look_for(watch, 300, fake_clock)


def test_there_is_no_alarm_while_it_claims_now_and_then(ledger: Ledger, node: Node, watch: Watch, fake_clock):
    accept(ledger)
    beats = iter(range(1000))

    def claim() -> None:
        node.progress += next(beats) % 25 == 0  # once in fifty seconds

    assert not look_for(watch, 600, fake_clock, claim)


def test_there_is_no_alarm_for_the_time_in_which_the_ledger_or_the_machine_is_away(
    ledger: Ledger, node: Node, watch: Watch, fake_clock, monkeypatch: pytest.MonkeyPatch
):
    accept(ledger)
    look_for(watch, 30, fake_clock)
    with monkeypatch.context() as patched:
        patched.setattr(nodes, "any_claimable", lambda *_: (_ for _ in ()).throw(LedgerUnavailable("away")))
        for _ in range(100):
            fake_clock.advance(10)
            with pytest.raises(LedgerUnavailable):
                watch.look()
    watch.look()
    fake_clock.advance(3600)  # the laptop sleeps
    watch.look()

    assert not watch.stuck


def test_there_is_no_alarm_while_the_ledger_can_be_read_and_not_written(
    ledger: Ledger, node: Node, fake_clock, monkeypatch: pytest.MonkeyPatch
):
    """Nobody claims from a disk that is full, and to start anew does not empty it."""
    accept(ledger)
    watch = Watch(node, 60, 0)
    node.group = SimpleNamespace(add=lambda *_: None)  # it tries again and again
    node.show_life, node.attend = lambda: None, watch.look
    lease = Lease(node, 2)  # type: ignore[arg-type]
    monkeypatch.setattr(ledger, "do", lambda *_: (_ for _ in ()).throw(LedgerFull("full")))
    for _ in range(300):
        with contextlib.suppress(LedgerFull):
            lease.tick()
        fake_clock.advance(2)

    assert not watch.stuck


def test_no_seconds_are_no_watch(ledger: Ledger, node: Node, fake_clock):
    accept(ledger)

    assert not look_for(Watch(node, 0, 0), 300, fake_clock)  # type: ignore[arg-type]


def test_a_node_that_stays_stuck_ends_with_a_code_that_says_start_me_again(
    ledger: Ledger, node: Node, fake_clock, monkeypatch: pytest.MonkeyPatch
):
    timers = []
    monkeypatch.setattr(worker_state, "should_stop", None)
    monkeypatch.setattr(module.threading, "Timer", lambda *given: timers.append(given) or SimpleNamespace(start=int))
    accept(ledger)
    watch = Watch(node, 60, 300)  # type: ignore[arg-type]

    look_for(watch, 300, fake_clock)
    assert worker_state.should_stop is None
    look_for(watch, 30, fake_clock)

    assert worker_state.should_stop == EXIT_CODE == 75
    assert [(seconds, code) for seconds, _, code in timers] == [(35, [75])]


def test_a_worker_whose_consumer_has_gone_ends_and_the_next_one_runs_the_jobs(tmp_path):
    with instance(tmp_path / "home", CELERIAC_STUCK_SECONDS="1", CELERIAC_STUCK_EXIT_SECONDS="2") as house:
        deaf = house.worker("deaf", app="jobs_for_watch:app")
        [id] = house.submit("add", x=1, y=1)

        assert deaf.wait(60) == EXIT_CODE, house.log("deaf")
        assert "is stuck: it claims nothing" in house.log("deaf")
        house.keeper()
        house.worker("next")
        [job] = house.ended([id])
        assert job.state is State.SUCCEEDED


def test_a_probe_finds_the_sign_of_life_of_a_worker_and_of_a_keeper(tmp_path, nursery: Nursery):
    def is_renewed(house: Instance, name: str) -> bool:
        path = house.home / f"{name}.alive"
        seen = until(lambda: path.exists() and path.stat().st_mtime_ns, f"the sign of life\n{house.log(name)}")
        return bool(until(lambda: path.stat().st_mtime_ns > seen, "the next one"))

    with instance(tmp_path / "home", nursery=nursery) as house:
        house.keeper("keeper", CELERIAC_ALIVE_FILE=str(house.home / "keeper.alive"))
        house.worker("worker", CELERIAC_ALIVE_FILE=str(house.home / "worker.alive"))

        assert is_renewed(house, "keeper")
        assert is_renewed(house, "worker")
