"""A model of the ledger in plain Python, and a machine that plays random lives of jobs against both.

The model knows the rules and nothing of SQL. After every step the states must agree, each change
must be one of states.MOVES, and `oracle.violations` must be silent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from oracle import violations

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.errors import JobFinal, JobNotFinal, JobSucceeded
from celeriac.jobs import Claimed
from celeriac.ledger import Asked, Ledger, cancel, counts, nodes, reopen, upkeep
from celeriac.states import FINAL, WAITING, State, may_move
from conformance.moves import (
    accept,
    begin,
    end,
    failure,
    given_back,
    retry,
    select,
    submission,
    success,
    take,
)
from conformance.test_nodes import NODE

MAX_DEATHS = 2
ORACLE_STEPS = 10
REPORTS: dict[str, Callable] = {"succeed": success, "fail": failure, "retry": retry, "give back": given_back}


@dataclass
class Model:
    """A job as the rules see it."""

    id: str
    order: tuple[int, int]  # how claims rank it: the higher priority, then the older
    state: State
    rerun: bool
    max_attempts: int | None
    attempt: int = 0
    executions: int = 0
    deaths: int = 0
    started: bool = False
    asked_to_end: bool = False
    worker: str | None = None
    seen: list[State] = field(default_factory=list)

    def holds(self, claim: Claimed) -> bool:
        return self.state is State.RUNNING and self.attempt == claim.attempt

    def leave(self, state: State) -> None:
        self.state = state
        self.worker = None

    def go_on(self, state: State) -> None:
        """End an attempt that wants another."""
        self.leave(State.CANCELLED if self.asked_to_end else state)

    def spent(self) -> bool:
        return self.max_attempts is not None and self.executions >= self.max_attempts


class Life(RuleBasedStateMachine):
    """Random lives of jobs, with two workers, against the model."""

    def __init__(self, ledger: Ledger, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self.ledger = ledger
        self.pass_time = pass_time
        self.jobs: dict[str, Model] = {}
        self.claims: list[Claimed] = []
        self.workers: list[str] = []
        self.links = 0
        self.steps = 0

    @initialize()
    def begin_anew(self) -> None:
        self.ledger.max_deaths = MAX_DEATHS
        with self.ledger.transaction() as tx:
            for table in ("jobs", "payloads", "events", "tags", "counts", "count_deltas", "workers"):
                tx.connection.exec_driver_sql(f"DELETE FROM {table}")
        for number in range(2):
            self.register(number)

    def register(self, number: int) -> None:
        id = f"w{number}@host/{clock.micros()}"
        self.ledger.do(nodes.register, replace(NODE, id=id))
        self.workers[number:] = [id, *self.workers[number + 1 :]]

    # Steps

    @rule(later=st.booleans(), rerun=st.booleans(), cap=st.sampled_from([None, 1, 2]), priority=st.integers(0, 2))
    def submit(self, later: bool, rerun: bool, cap: int | None, priority: int) -> None:
        run_at = clock.micros() + 5_000_000 if later else None
        id = accept(self.ledger, run_at=run_at, rerun=rerun, max_attempts=cap, priority=priority)
        state = State.SCHEDULED if later else State.QUEUED
        self.jobs[id] = Model(id, (-priority, len(self.jobs)), state, rerun, cap)

    @rule(worker=st.integers(0, 1), limit=st.integers(1, 3))
    def claim(self, worker: int, limit: int) -> None:
        ready = sorted((job for job in self.jobs.values() if job.state is State.QUEUED), key=lambda job: job.order)
        taken = take(self.ledger, limit, worker=self.workers[worker])
        assert [claim.id for claim in taken] == [job.id for job in ready[:limit]]
        for claim in taken:
            job = self.jobs[claim.id]
            assert claim.attempt > job.attempt, "an attempt's number was used before"
            job.attempt, job.state, job.started, job.worker = claim.attempt, State.RUNNING, False, self.workers[worker]
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        claim = self.any_claim(data)
        job = self.jobs[claim.id]
        fresh = job.holds(claim) and not job.started
        assert begin(self.ledger, claim) is fresh
        if fresh:
            job.started, job.executions = True, job.executions + 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), report=st.sampled_from(sorted(REPORTS)))
    def finish(self, data: st.DataObject, report: str) -> None:
        claim = self.any_claim(data)
        job = self.jobs[claim.id]
        self.links += 1
        link = f"link-{self.links}"
        outcome = replace(REPORTS[report](claim), sends=(submission(id=link, queue="links"),))

        held = job.holds(claim)
        assert end(self.ledger, outcome) == [held], f"{report} of attempt {claim.attempt}"

        if held:
            self.apply(job, report)
        sent = select(self.ledger, "SELECT 1 FROM jobs WHERE id = :id", id=link) != []
        assert sent is (held and job.state in (State.SUCCEEDED, State.FAILED))

    def apply(self, job: Model, report: str) -> None:
        match report:
            case "succeed":
                job.leave(State.SUCCEEDED)
            case "fail":
                job.leave(State.FAILED)
            case "retry" if job.spent() and not job.asked_to_end:
                job.leave(State.FAILED)
            case "retry":
                job.go_on(State.RETRYING)
            case "give back":
                job.go_on(State.QUEUED)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.any_job(data)
        try:
            answer = self.ledger.do(cancel, Asked(SYSTEM, job.id))
        except JobFinal:
            assert job.state in FINAL
            return
        if job.state in WAITING:
            assert answer is State.CANCELLED
            job.leave(State.CANCELLED)
        else:
            assert (job.state, answer) == (State.RUNNING, State.RUNNING)
            job.asked_to_end = True

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        job = self.any_job(data)
        try:
            self.ledger.do(reopen, Asked(SYSTEM, job.id))
        except JobNotFinal:
            assert job.state not in FINAL
            return
        except JobSucceeded:
            assert job.state is State.SUCCEEDED
            return
        assert job.state in (State.FAILED, State.CANCELLED)
        job.state, job.asked_to_end, job.executions, job.deaths = State.QUEUED, False, 0, 0

    @rule()
    def time_passes(self) -> None:
        self.pass_time(6)
        with self.ledger.transaction() as tx:
            upkeep.fall_due(tx)
        for job in self.jobs.values():
            if job.state in (State.SCHEDULED, State.RETRYING):
                job.state = State.QUEUED

    @rule(worker=st.integers(0, 1))
    def lose_and_rescue(self, worker: int) -> None:
        gone = self.workers[worker]
        self.pass_time(1)
        with self.ledger.transaction() as tx:
            assert nodes.lose(tx, [gone])
        self.register(worker)
        with self.ledger.transaction() as tx:
            rescued = upkeep.rescue(tx)
        lost = [job for job in self.jobs.values() if job.worker == gone and job.state is State.RUNNING]
        assert rescued == len(lost)
        for job in lost:
            job.deaths += job.started
            ends = job.started and (not job.rerun or job.deaths >= MAX_DEATHS or job.spent())
            if ends and not job.asked_to_end:
                job.leave(State.FAILED)
            else:
                job.go_on(State.QUEUED)

    @rule()
    def fold(self) -> None:
        with self.ledger.transaction() as tx:
            counts.fold_counts(tx)

    # What always holds

    @invariant()
    def the_ledger_agrees_with_the_model(self) -> None:
        rows = select(self.ledger, "SELECT id, state, attempt, executions, deaths FROM jobs WHERE queue = 'default'")
        told = {id: tuple(rest) for id, *rest in rows}
        assert told == {job.id: (job.state, job.attempt, job.executions, job.deaths) for job in self.jobs.values()}

    @invariant()
    def every_change_is_a_move_of_the_table(self) -> None:
        for job in self.jobs.values():
            if job.seen and job.seen[-1] is not job.state:
                assert may_move(job.seen[-1], job.state), f"{job.seen[-1]} -> {job.state}"
            if job.seen[-1:] != [job.state]:
                job.seen.append(job.state)

    @invariant()
    def the_oracle_is_silent(self) -> None:
        """Asked now and then and at the end: it reads the whole ledger, and what it minds stays wrong."""
        self.steps += 1
        if self.steps % ORACLE_STEPS == 0:
            self.teardown()

    def teardown(self) -> None:
        assert violations(self.ledger, self.jobs, ended=False) == []

    def any_claim(self, data: st.DataObject) -> Claimed:
        """A claim that was ever made; every other time one whose job is in other hands by now, if there is any."""
        late = [claim for claim in self.claims if self.jobs[claim.id].state is State.RUNNING]
        late = [claim for claim in late if not self.jobs[claim.id].holds(claim)]
        if late and data.draw(st.booleans()):
            return data.draw(st.sampled_from(late))
        return self.claims[data.draw(st.integers(0, len(self.claims) - 1))]

    def any_job(self, data: st.DataObject) -> Model:
        return list(self.jobs.values())[data.draw(st.integers(0, len(self.jobs) - 1))]
