"""The machine that plays lives: a deed at a time, and after each the ledger must show what the model says.

Called by `test_life.py` with a Seen, in which it keeps what all lives together have come by.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any, TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from oracle import violations

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.jobs import Claimed, Submission
from celeriac.ledger import Ledger, Move, batches, nodes, read
from celeriac.ledger.batches import BatchSubmission
from celeriac.ledger.schema import metadata
from celeriac.states import State
from conformance.life.deeds import DEEDS
from conformance.life.model import Model
from conformance.life.records import Errand, Job
from conformance.life.wishes import REPORTS, SPECIAL
from conformance.test_nodes import NODE

Choice = TypeVar("Choice")

TABLES = [table.name for table in metadata.sorted_tables]
# The first is the simplest, and Hypothesis begins with lives of nothing else: of submits, claims and ends.
DECK = sorted((name for name in DEEDS for _ in range(DEEDS[name].weight)), key="a_worker_ends".__ne__)
INSTEAD = ("a_worker_claims", "a_worker_ends", "somebody_resumes", "somebody_submits")  # of what makes no sense
DICE = 32  # for a deed
LISTEN_STEPS = 10
VACUUM_LIVES = 25


@dataclass
class Seen:
    """What the lives have come by, all together: how long they were, where jobs went, what was said and answered."""

    steps: list[int] = field(default_factory=list)
    moves: Counter[tuple[State, State]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)


class Life(RuleBasedStateMachine):
    """A random life of jobs, with two workers."""

    def __init__(self, ledger: Ledger, reader: Any, pass_time: Callable[[float], None], seen: Seen) -> None:
        super().__init__()
        self.ledger = ledger
        self.reader = reader  # the driver's connection, which is faster: so much is read
        self.pass_time = pass_time
        self.seen = seen
        self.dice: Iterator[int] = repeat(0)
        self.names: Counter[str] = Counter()
        self.sent: list[Submission | BatchSubmission] = []
        self.links: dict[str, Submission] = {}  # what is sent when it is their turn in a chain
        self.unsized: dict[str, int] = {}  # chords whose size the ledger does not know yet
        self.errands: list[tuple[str, Errand]] = []
        self.claims: list[Claimed] = []
        self.heard: Counter[int] = Counter()  # how many events, by job
        self.position = 0  # of the last event
        self.steps = 0

    @initialize(luck=st.sampled_from(list(REPORTS)), theme=st.sampled_from(list(SPECIAL)), deaths=st.integers(2, 3))
    def begin(self, luck: str, theme: str, deaths: int) -> None:
        self.luck, self.theme, self.ledger.max_deaths = luck, theme, deaths
        self.model = Model(clock.micros, deaths)
        self.workers = [self.name("worker"), self.name("worker")]
        with self.ledger.transaction() as tx:
            for table in TABLES:
                tx.connection.exec_driver_sql(f"DELETE FROM {table}")
            nodes.register(tx, [replace(NODE, id=id) for id in self.workers])
        if self.ledger.dialect == "postgresql" and len(self.seen.steps) % VACUUM_LIVES == 0:
            self.reader.execute(f"VACUUM {', '.join(TABLES)}")

    # Hypothesis leaves out most of several rules in most runs, and a life without claims shows nothing. It also cuts
    # off a run that it has varied where that takes more choices than before; here each step takes as many.
    @rule(name=st.sampled_from(DECK), dice=st.binary(min_size=DICE, max_size=DICE))
    def step(self, name: str, dice: bytes) -> None:
        """Let something happen: the deed of this name, or another one if it makes no sense."""
        self.dice = chain(dice, repeat(0))
        self.pass_time(0.001)
        if not DEEDS[name].when(self):
            name = next(other for other in INSTEAD if DEEDS[other].when(self))
        self.tell(name)
        DEEDS[name].do(self)
        self.steps += 1
        self.compare()
        if self.steps % LISTEN_STEPS == 0:
            self.listen()

    def teardown(self) -> None:
        """Look back, unless something was wrong, or Hypothesis has dropped this life on the way."""
        if sys.exc_info()[0] is None and self.steps:
            self.listen()
            self.look_back()
            self.seen.steps.append(self.steps)

    # What always holds

    def compare(self) -> None:
        """Read every job: each must stand where the model says, and have come there by moves of the table."""
        jobs = self.model.jobs
        rows = self.select(
            "SELECT id, key, state, queue, task, priority, attempt, executions, deaths, number FROM jobs"
        )
        assert {row[0]: row[2:] for row in rows} == {job.id: _shown(job) for job in jobs.values()}
        for id, key, *_ in rows:
            assert jobs[id].key in (0, key), f"{id} is another job than before"
            jobs[id].key = key
        assert self.model.rivals() == []
        for seen, new in ((self.seen.moves, self.model.moves), (self.seen.answers, self.model.seen)):
            seen.update(new)
            new.clear()

    def listen(self) -> None:
        """Read the counts and what was written down since the last time: event for event what the model says."""
        jobs = {job.key: job for job in self.model.jobs.values()}
        events = self.select(
            f"SELECT job, number, kind, position FROM events WHERE position > {self.position} ORDER BY position"
        )
        for key, number, kind, self.position in events:
            self.heard[key] += 1
            assert (number, kind) == (self.heard[key], jobs[key].kinds[number - 1]), jobs[key].id
            self.seen.kinds[kind] += 1
        assert {key: self.heard[key] for key in jobs} == {key: len(jobs[key].kinds) for key in jobs}
        with self.ledger.reading() as connection:
            assert read.all_counts(connection) == Counter((job.state, job.queue, job.task) for job in jobs.values())

    def look_back(self) -> None:
        """Ask the oracle, and what is left behind of jobs that are gone, and the batches."""
        assert violations(self.ledger, self.model.jobs, ended=False) == []
        for table in ("payloads", "events", "tags"):
            assert self.select(f"SELECT job FROM {table} WHERE job NOT IN (SELECT key FROM jobs)") == [], table
        for id, (_, made) in self.model.batches.items():
            batch = batches.batch(self.ledger, SYSTEM, id)
            there = Counter(str(job.state) for job in self.model.jobs.values() if job.batch == id)
            assert (batch.size, batch.counts) == (made, there)

    def select(self, query: str) -> list[tuple[Any, ...]]:
        return self.reader.execute(query).fetchall()

    # What deeds ask for: chance, answers, workers

    def roll(self, sides: int) -> int:
        """One of so many numbers."""
        return next(self.dice) % sides

    def pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[self.roll(len(choices))]

    def name(self, kind: str) -> str:
        self.names[kind] += 1
        return f"{kind}-{self.names[kind]}"

    def tell(self, line: str) -> None:
        """Say what happens, if this life is the one that is reported."""
        note(f"  {line}")

    def ask(self, move: Move[Any, Any], item: Any) -> Any:
        """Make one move; return what the ledger answers, a refusal too."""
        with self.ledger.transaction() as tx:
            [answer] = move(tx, [item])
        return answer

    def same(self, asked: str, answer: Any, expected: Any) -> None:
        """Two answers, of the ledger and of the model, must be the same."""
        assert answer == expected, asked
        several = expected if isinstance(expected, list) else [expected]
        self.seen.answers.update(f"{asked}: {one[0] if isinstance(one, tuple) else one}" for one in several)

    def kept(self, step: Callable[..., int], expected: Callable[[], int]) -> None:
        """Let the keeper take a step: it must move as many as the model does."""
        with self.ledger.transaction() as tx:
            moved = step(tx)
        assert moved == expected()

    def register(self, slot: int) -> None:
        self.workers[slot] = self.name("worker")
        self.ask(nodes.register, replace(NODE, id=self.workers[slot]))

    def busy(self) -> list[str]:
        """The workers that hold jobs and are not gone."""
        busy = {job.worker for job in self.model.in_state(State.RUNNING)} - self.model.gone
        return [worker for worker in self.workers if worker in busy]

    def held(self, started: bool | None = None) -> list[Claimed]:
        """The claims that hold their jobs; only what has started, or has not, if that is said."""
        holders = [(claim, self.model.holder(claim)) for claim in self.claims]
        return [claim for claim, job in holders if job is not None and started in (None, job.started)]

    def any_claim(self, started: bool | None = None) -> Claimed:
        """A claim that holds its job; every sixth time one that does not, best one whose job is in other hands."""
        held = self.held(started)
        if self.roll(6):
            return self.pick(held)
        late = [claim for claim in self.claims if self.model.holder(claim) is None]
        running = {job.id for job in self.model.in_state(State.RUNNING)}
        return self.pick([claim for claim in late if claim.id in running] or late or held)


def _shown(job: Job) -> tuple[Any, ...]:
    """A job as its row shows it."""
    place = (job.state, job.queue, job.task, job.priority)
    return (*place, job.attempt, job.executions, job.deaths, len(job.kinds))
