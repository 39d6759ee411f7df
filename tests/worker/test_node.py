"""A node with a real ledger and a thread pool: what it claims it knows of, what it gives back never runs here."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import celery
import msgspec
import pytest
from conformance.moves import kinds, state_of, success, take
from instance import until
from kombu.asynchronous import Hub
from kombu.message import Message

from celeriac import Celeriac
from celeriac.app import Tasks
from celeriac.app.tasks import JobRequest
from celeriac.errors import LedgerBusy
from celeriac.jobs import Claimed
from celeriac.ledger import Ledger, submit
from celeriac.settings import Settings
from celeriac.states import State
from celeriac.worker import capture, node
from celeriac.worker.node import Node
from celeriac.worker.pool import ThreadPool
from celeriac.worker.request import LedgerRequest

RAN: list[str] = []
app = Celeriac("nodes", set_as_current=False)


@app.task(name="add")
def add(x: float = 0, y: float = 0) -> float:
    RAN.append("add")
    return x + y


class Consumer:
    """What Celery's consumer does with a claimed job: a request, and on to the pool."""

    source = None

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool

    def consumes(self, queue: str) -> bool:
        return True

    def deliver(self, job: Claimed) -> None:
        headers = {**msgspec.json.decode(job.message.headers), "id": job.id, "celeriac": {"key": job.key}}
        message = Message(
            body=job.message.body, headers=headers, properties=msgspec.json.decode(job.message.properties),
            content_type="application/json", content_encoding="utf-8", delivery_info={},
        )  # fmt: skip
        LedgerRequest(message, app=app, task=app.tasks["add"]).execute_using_pool(self.pool)


class House:
    """A node with a pool of one thread, and the hub under it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.hub, self.pool = ledger, Hub(), ThreadPool(1)
        queues = {"default": SimpleNamespace(exchange=SimpleNamespace(type="direct"))}
        shown = SimpleNamespace(tasks=app.tasks, amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=queues)))
        self.node = Node(SimpleNamespace(hostname="w@h", hub=self.hub, pool=self.pool, app=shown), ledger,
                         Settings(database_url=ledger.url))  # fmt: skip
        self.node.register()
        self.gate = threading.Event()

    def attach(self) -> None:
        self.node.attach(Consumer(self.pool))

    def claim(self) -> None:
        """Claim, and hear the answer."""
        self.node.fetch()
        self.settle()

    def settle(self) -> None:
        """Wait for all that was handed to the group, and hear what it answers."""

        def settled() -> bool:
            self.node.inbox.drain()
            return not (self.node._claiming or self.node._owed)

        until(settled, "the group to answer")

    def look(self) -> None:
        self.node._lease.tick()
        self.node.inbox.drain()
        self.settle()

    def keep_busy(self) -> None:
        """Let the pool's thread have something else to do, until the gate opens."""
        self.pool.executor.submit(self.gate.wait, 30)

    def open(self) -> None:
        """Let the pool's thread do everything that waits for it."""
        self.gate.set()
        self.pool.executor.submit(int).result(30)


@pytest.fixture
def house(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    RAN.clear()
    monkeypatch.setattr(capture, "send_frame", lambda frame: None)
    monkeypatch.setattr(celery._state, "default_app", app)  # as a worker does: its threads ask for it
    made = House(ledger)
    node.set_current(made.node)
    made.attach()
    yield made
    made.gate.set()
    made.node.stop()
    made.pool.executor.shutdown()
    node.set_current(None)
    made.hub.close()


def order(ledger: Ledger) -> str:
    """Submit a job as a program does."""
    return ledger.do(submit, Tasks(app).submission(JobRequest("add", b'{"x":1,"y":2}'), "ann")).id


def lose_the_next_answer(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit once more, and cut the connection before that is known."""
    transaction = ledger.transaction

    @contextmanager
    def cut() -> Iterator:
        monkeypatch.undo()
        with transaction() as tx:
            yield tx
        raise LedgerBusy("The connection was lost.")

    monkeypatch.setattr(ledger, "transaction", cut)


# Jobs whose claim was answered to nobody


def test_a_job_whose_claim_was_answered_to_nobody_is_given_back_and_runs(house: House, ledger: Ledger):
    id = order(ledger)
    with pytest.MonkeyPatch.context() as patch:
        lose_the_next_answer(ledger, patch)
        house.claim()
    assert (state_of(ledger, id), house.node.held) == (State.RUNNING, {})

    house.look()
    assert state_of(ledger, id) is State.RUNNING  # a claim may be under way: nobody is sure yet
    house.look()
    assert (state_of(ledger, id), kinds(ledger, id)) == (State.QUEUED, ["submitted", "claimed", "given-back"])

    house.claim()
    house.open()
    house.settle()
    assert (state_of(ledger, id), RAN) == (State.SUCCEEDED, ["add"])


def test_a_job_that_waits_for_the_pool_is_nobodys_stray(house: House, ledger: Ledger):
    house.keep_busy()
    id = order(ledger)
    house.claim()
    for _ in range(4):
        house.look()

    assert kinds(ledger, id) == ["submitted", "claimed"]


def test_a_job_whose_claim_is_under_way_is_nobodys_stray(house: House, ledger: Ledger):
    house.keep_busy()
    id = order(ledger)
    house.node._turn, house.node._claiming = 1, True
    [job] = take(ledger, worker=house.node.id)
    for _ in range(4):
        house.node.strays()
        house.node.inbox.drain()

    house.node._claimed(1, [], [job])
    house.settle()
    assert kinds(ledger, id) == ["submitted", "claimed"]
    assert house.node.holds(job)


def test_a_job_whose_outcome_is_on_its_way_is_nobodys_stray(house: House, ledger: Ledger):
    id = order(ledger)
    [job] = take(ledger, worker=house.node.id)
    house.node._owed.add((job.key, job.attempt))
    for _ in range(4):
        house.node.strays()
        house.node.inbox.drain()

    house.node._hand_in(success(job))
    house.settle()
    assert kinds(ledger, id) == ["submitted", "claimed", "succeeded"]


# Threads and a connection that is lost


def test_what_a_thread_has_not_begun_never_runs_once_it_is_given_back(house: House, ledger: Ledger):
    house.keep_busy()
    id = order(ledger)
    house.claim()
    house.node.detach()
    house.settle()
    assert state_of(ledger, id) is State.QUEUED

    house.open()
    assert RAN == []


def test_what_a_thread_has_begun_unheard_is_not_given_back(house: House, ledger: Ledger):
    house.keep_busy()
    id = order(ledger)
    house.claim()
    house.open()  # the hub has not heard of it
    house.node.detach()
    house.settle()

    assert kinds(ledger, id) == ["submitted", "claimed", "started", "succeeded"]
    assert RAN == ["add"]


def test_a_thread_asks_before_it_runs_whether_the_job_is_still_the_nodes(house: House, ledger: Ledger):
    house.keep_busy()
    id = order(ledger)
    house.claim()
    [job] = house.node.held.values()
    house.node.stopping = True  # claim no more
    house.node.give_back(job)
    house.open()
    house.settle()
    house.node.stopping = False

    assert RAN == []
    assert kinds(ledger, id) == ["submitted", "claimed", "given-back"]


# The lease


def test_an_error_that_nobody_foresaw_does_not_end_the_lease(house: House, monkeypatch, caplog, wait_until):
    beats = []

    def beat() -> None:
        beats.append(1)
        raise ZeroDivisionError

    lease = house.node._lease
    lease._seconds = 0.001
    monkeypatch.setattr(house.node, "cancels", beat)
    lease.start()
    wait_until(lambda: len(beats) > 2, "the lease to go on")
    lease.stop()
    lease._thread.join(30)

    assert "A beat failed" in caplog.text
