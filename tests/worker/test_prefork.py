"""The prefork pool, where Celery's own would end the worker, or run a job twice."""

from collections import deque
from types import SimpleNamespace
from typing import Any

from billiard import Pipe
from billiard.pool import ACK, RUN

from celeriac.worker.pool import AsynPool


def test_a_child_is_replaced_although_the_pipes_of_the_one_before_are_still_taken():
    class Taken(AsynPool):
        def __init__(self) -> None:
            self._queues = {"of the dead": object()}

        def create_process_queues(self) -> str:
            return "new"

    assert Taken().get_process_queues() == "new"


class Child:
    """A child of which the pool holds this end; `exitcodes` are what it is seen to have ended with, look by look."""

    name, dead, synq = "child", False, None

    def __init__(self, pid: int, *exitcodes: int | None) -> None:
        self.pid = pid
        self._popen = object()
        self._exitcodes = deque(exitcodes)
        reader, self.says = Pipe(duplex=False)
        self.outq = SimpleNamespace(_reader=reader)

    @property
    def exitcode(self) -> int | None:
        return self._exitcodes.popleft() if len(self._exitcodes) > 1 else self._exitcodes[0]

    def _is_alive(self) -> bool:
        return self.exitcode is None

    def join(self) -> None:
        pass


class Pool(AsynPool):
    """Celery's way to bury children, with nothing around it."""

    def __init__(self, job: Any, *children: Child) -> None:
        self._state = RUN
        self._cache, self._queues = {1: job}, {}
        self._pool = list(children)
        self._poolctrl = {child.pid: None for child in children}
        self._on_ready_counters = {child.pid: None for child in children}
        self._result_handler = SimpleNamespace(on_worker_exit=lambda pid: None, on_state_change=self._hear)
        self.on_process_down = None
        self.put_back: list[Any] = []
        self.lost: list[int] = []
        self._put_back = self.put_back.append

    def _hear(self, said: Any) -> None:
        kind, (number, _, _, pid, _) = said
        assert kind == ACK
        self._cache[number]._accepted = True
        self._cache[number].pids = [pid]

    def _find_worker_queues(self, child: Any) -> Any:
        raise ValueError(child)

    def on_job_process_lost(self, job: Any, pid: int, exitcode: int) -> None:
        self.lost.append(pid)


def given_to(child: Child) -> Any:
    job = SimpleNamespace(_write_to=child, _scheduled_for=child, _accepted=False, _worker_lost=None, pids=[])
    job.worker_pids, job.ready = (lambda: job.pids), (lambda: False)
    return job


def test_a_job_whose_child_dies_while_another_is_buried_is_lost_with_it_and_not_begun_again():
    """It has begun, and what its child said of that has not been read."""
    first, second = Child(1, -9), Child(2, None, -9)
    job = given_to(second)
    pool = Pool(job, first, second)
    second.says.send((ACK, (1, 0, 0.0, 2, None)))

    pool._join_exited_workers()
    assert (pool.put_back, pool.lost) == ([], [])

    pool._join_exited_workers()
    assert (pool.put_back, pool.lost) == ([], [2])


def test_a_job_that_a_dead_child_has_not_begun_is_given_to_another():
    first, second = Child(1, -9), Child(2, None, -9)
    job = given_to(second)
    pool = Pool(job, first, second)

    pool._join_exited_workers()

    assert pool.put_back == [job]
