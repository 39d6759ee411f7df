"""The rules of the ledger in plain Python: what each move must answer, and what of it shows in the jobs.

What it is given are the ledger's own Submissions and Outcomes; where a job goes because of them it decides by itself.
Every method is a move of the ledger in the same words, and no job goes where `states.MOVES` does not lead.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from celeriac.jobs import Chord, Claimed, Failure, Kind, Message, Outcome, Submission
from celeriac.ledger.batches import BatchSubmission
from celeriac.states import FINAL, WAITING, State, may_move
from conformance.life.records import ChordRecord, Entry, Errand, Job, Key, chain_of, unique_of
from conformance.moves import SECOND

Answer: TypeAlias = tuple[str, ...]  # a word; and of a submit the job's id and state

LOST = Failure("worker-lost", "WorkerLost", "gone")
UPSTREAM = Failure("upstream-failed", "Upstream", "gave up")
NEVER = 2**62


class Model:
    """All jobs, and what is kept beside them."""

    def __init__(self, now: Callable[[], int], max_deaths: int) -> None:
        self.now = now
        self.max_deaths = max_deaths
        self.jobs: dict[str, Job] = {}
        self.keys: dict[Key, tuple[str, int]] = {}  # the job, and how long the key stands after its end
        self.entries: dict[tuple[str, str], Entry] = {}
        self.batches: dict[str, tuple[int, int]] = {}  # when it was made, and how many jobs it made
        self.chords: dict[str, ChordRecord] = {}
        self.paused: set[str] = set()  # queues
        self.gone: set[str] = set()  # workers
        self.moves: Counter[tuple[State, State]] = Counter()
        self.seen: Counter[str] = Counter()  # what else happened

    # Looks

    def in_state(self, *states: State) -> list[Job]:
        """The jobs in these states, the oldest first."""
        return sorted((job for job in self.jobs.values() if job.state in states), key=lambda job: job.key)

    def holder(self, claim: Claimed | Outcome) -> Job | None:
        """The job that an attempt holds, or None when it does not."""
        job = self.jobs.get(claim.id)
        held = job is not None and (job.key, job.state, job.attempt) == (claim.key, State.RUNNING, claim.attempt)
        return job if held else None

    def waits(self, id: str) -> bool:
        """Whether a job that is there gets its message, or its end, from what runs before it."""
        return id in self.jobs and (self.jobs[id].given_up or self.jobs[id].replaced)

    def taken(self, wish: Submission) -> bool:
        """Whether another job has this id, or the same that has gone on as something else."""
        return wish.id in self.jobs and not self.jobs[wish.id].is_of(wish)

    def chord_of(self, id: str) -> str | None:
        return self.jobs[id].chord if id in self.jobs else None

    def claimable(self) -> bool:
        return any(job.queue not in self.paused for job in self.in_state(State.QUEUED))

    def expired(self) -> list[Job]:
        """What waits although its expiry has passed."""
        return [job for job in self.in_state(*WAITING) if (job.expires_at or NEVER) <= self.now()]

    def orphans(self) -> list[Job]:
        return [job for job in self.in_state(State.RUNNING) if job.worker in self.gone]

    def rivals(self) -> list[Key]:
        """Unique keys that more than one job has that has not ended."""
        held = Counter(job.unique for job in self.jobs.values() if job.unique and job.live)
        return [key for key, jobs in held.items() if jobs > 1]

    # Submit

    def submit(self, wish: Submission, follows: bool = False) -> Answer:
        """Accept a job; answers fresh, replayed, duplicate, or the error's name.

        One that `follows` another may be there already, and wait for this.
        """
        place = wish.owner, wish.idempotency_key or ""
        if wish.idempotency_key is not None:
            entry = self.entries.get(place)
            if entry is not None and entry.id in self.jobs:
                same = entry.fingerprint == wish.fingerprint
                return self._answer("replayed", entry.id) if same else ("IdempotencyMismatch",)
            self.entries[place] = Entry(wish.id, wish.fingerprint, self.now())
        known = wish.id in self.jobs
        holder = self._stand(wish, entered=not known)
        if holder is not None:
            if wish.idempotency_key is not None:
                self.entries[place].id = holder.id
            return self._answer("duplicate", holder.id)
        if follows and self.waits(wish.id):
            self._revive(self.jobs[wish.id], wish)
        elif self.taken(wish):
            return ("JobExists",)
        elif not known:
            self._enter(wish)
        return self._answer("replayed" if known else "fresh", wish.id)

    def submit_batch(self, batch: BatchSubmission) -> Answer | list[Answer]:
        """Accept jobs together; answers for each, or the first batch of the same key."""
        if batch.idempotency_key is not None:
            place = batch.owner, f"batch {batch.idempotency_key}"
            entry = self.entries.get(place)
            if entry is None or (entry.id != batch.id and entry.id not in self.batches):
                self.entries[place] = Entry(batch.id, batch.fingerprint, self.now())
            elif entry.id != batch.id:
                return ("batch replayed", entry.id)
        answers: list[Answer] = []
        firsts: dict[Key, str] = {}
        for wish in batch.submissions:
            key = unique_of(wish)
            if key is not None and key in firsts:
                answers.append(self._answer("duplicate", firsts[key]))
                continue
            answers.append(self.submit(wish))
            if key is not None:
                firsts[key] = answers[-1][1]
        made = sum(answer[0] != "duplicate" for answer in answers)
        self.batches.setdefault(batch.id, (self.now(), made))
        return answers

    def _answer(self, word: str, id: str) -> Answer:
        return word, id, self.jobs[id].state

    def _stand(self, wish: Submission, entered: bool) -> Job | None:
        """Return the job that a unique key stands for, or let it stand for this one, if that is `entered`."""
        key = unique_of(wish)
        if key is None or wish.unique is None or self._standing(key)[0] == wish.id:
            return None
        _, until, holder = self._standing(key)
        if holder is not None and (holder.live or until > self.now()):
            return holder
        self._lose(holder, key)
        self.keys.pop(key, None)
        if entered:
            self.keys[key] = wish.id, self.now() + int(wish.unique.seconds * SECOND)
        return None

    def _standing(self, key: Key) -> tuple[str, int, Job | None]:
        """What a unique key stands for and how long; no job if it is gone, or another owner's has its id by now."""
        id, until = self.keys.get(key, ("", 0))
        job = self.jobs.get(id)
        return id, until, job if job is not None and job.owner == key[0] else None

    def _lose(self, holder: Job | None, key: Key) -> None:
        if holder is not None and holder.state is not State.SUCCEEDED:
            holder.lost = key

    def _enter(self, wish: Submission) -> None:
        now, state = self.now(), State.QUEUED
        if wish.failure is not None:
            state = wish.ends_as
        elif wish.run_at is not None and wish.run_at > now:
            state = State.SCHEDULED
        ended = state in FINAL
        self.jobs[wish.id] = Job(
            wish.id, wish.task, wish.queue, wish.owner, wish.priority, state, wish.rerun, wish.max_attempts,
            wish.run_at, wish.expires_at, now if ended else None, unique_of(wish), wish.chord, wish.batch,
            wish.message.body, ended, [Kind.SUBMITTED, Kind(state)] if ended else [Kind.SUBMITTED],
        )  # fmt: skip

    def _revive(self, job: Job, wish: Submission) -> None:
        """Give a job that waits for what runs before it its message, or its end."""
        replaced = job.state is State.RETRYING
        if wish.failure is not None:
            if not replaced:
                return  # it has been given up before
            self._go(job, wish.ends_as, Kind(wish.ends_as))
            self.seen["canvas given up"] += 1
        else:
            self._go(job, State.QUEUED, None if replaced else Kind.REOPENED)
            self.seen["canvas done" if replaced else "revived"] += 1
        job.given_up, job.lost, job.body = wish.failure is not None, None, wish.message.body
        job.task, job.queue, job.priority, job.run_at = wish.task, wish.queue, wish.priority, wish.run_at

    # Claim, start and end

    def claim(self, worker: str, queues: Sequence[str], tasks: tuple[str, ...], limit: int, after: str) -> list[Job]:
        """Let a worker take the best jobs; the owner `after` had the last turn in each queue."""
        taken: list[Job] = []
        for queue in queues:
            if worker not in self.gone and queue not in self.paused:
                taken += self._best(queue, tasks, after)[: limit - len(taken)]
        for job in taken:
            self._go(job, State.RUNNING, Kind.CLAIMED)
            job.attempt, job.started, job.worker = job.attempt + 1, False, worker
        return taken

    def _best(self, queue: str, tasks: tuple[str, ...], after: str) -> list[Job]:
        """What may be claimed, best first: by priority, in which the owners take turns, each with the oldest."""
        turns: Counter[tuple[int, str]] = Counter()
        ranked = []
        for job in self.in_state(State.QUEUED):
            if job.may_be_claimed(queue, tasks, self.now()):
                turn = turns[job.priority, job.owner]
                ranked.append(((-job.priority, turn, job.owner <= after, job.owner), job))
                turns[job.priority, job.owner] += 1
        return [job for _, job in sorted(ranked, key=lambda one: one[0])]

    def start(self, claim: Claimed) -> bool:
        job = self.holder(claim)
        if job is None or job.started:
            return False
        self._start(job)
        return True

    def _start(self, job: Job) -> None:
        job.started, job.executions = True, job.executions + 1
        job.kinds.append(Kind.STARTED)

    def note(self, claim: Claimed, kind: Kind) -> bool:
        job = self.holder(claim)
        if job is not None:
            job.kinds.append(kind)
        return job is not None

    def finish(self, *outcomes: Outcome) -> list[bool]:
        """End attempts, together with what follows them; only the first end of an attempt that holds counts."""
        ended: dict[str, tuple[Job, Outcome]] = {}
        answers = []
        for outcome in outcomes:
            job = None if outcome.id in ended else self.holder(outcome)
            answers.append(job is not None)
            if job is not None:
                ended[job.id] = job, outcome
        for job, outcome in ended.values():
            self._end(job, outcome)
        for job, outcome in ended.values():
            if job.state in (State.SUCCEEDED, State.FAILED) or (outcome.replaced and job.replaced):
                for wish in outcome.sends:
                    self.submit(wish, follows=True)
        self._follow([job for job, _ in ended.values() if not job.live])
        return answers

    def _end(self, job: Job, outcome: Outcome) -> None:
        if outcome.started_at is not None and not job.started:
            self._start(job)
        state, kind = self._verdict(job, outcome)
        if state is State.RETRYING:
            job.run_at = outcome.run_at
        job.deaths += outcome.death
        job.queue = outcome.new_queue or job.queue
        job.priority = job.priority if outcome.new_priority is None else outcome.new_priority
        job.worker = None
        self._go(job, state, kind)

    def _verdict(self, job: Job, outcome: Outcome) -> tuple[State, Kind]:
        """Where an end leads, given what was asked of the job meanwhile and what it has been through."""
        if outcome.state in FINAL:
            return outcome.state, outcome.kind
        if job.asked_to_end:
            return State.CANCELLED, Kind.CANCELLED
        if outcome.death and not job.rerun:
            return State.FAILED, Kind.FAILED
        if outcome.death and job.deaths + 1 >= self.max_deaths:
            return State.FAILED, Kind.QUARANTINED
        if outcome.failure is not None and job.cap is not None and job.executions >= job.cap:
            return State.FAILED, Kind.FAILED
        return outcome.state, outcome.kind

    # What follows an end

    def _follow(self, ended: Iterable[Job]) -> None:
        """Give up what was to follow jobs that ended without success, and tell the chords they are members of."""
        ended = list(ended)
        failed = [job for job in ended if job.state is not State.SUCCEEDED]
        self._give_up([self._behind(job, id, job.state) for job in failed for id in job.chain])
        self._settle([(job.id, job.chord, job.state) for job in ended if job.chord])

    def _behind(self, before: Job | Submission, id: str, state: State) -> Submission:
        """A link of a chain as it is recorded when it never runs."""
        return Submission(
            id, "add", before.queue, before.owner, Message("{}", "{}", "[[],{},{}]"), failure=UPSTREAM, ends_as=state,
            chord=self.chord_of(id),
        )  # fmt: skip

    def _give_up(self, wishes: Sequence[Submission]) -> None:
        for wish in wishes:
            links = [self._behind(wish, id, wish.ends_as) for id in chain_of(wish.message.body)]
            for given_up in (wish, *links):
                self.submit(given_up, follows=True)
        self._settle([(wish.id, wish.chord, wish.ends_as) for wish in wishes if wish.chord])

    def open_chord(self, chord: Chord) -> None:
        kept = self.chords.setdefault(chord.id, ChordRecord(self.now()))
        kept.size = kept.size if chord.size is None else chord.size
        if chord.body:
            [kept.body] = chord.body
        self._fire([chord.id])

    def _settle(self, ends: Sequence[tuple[str, str, State]]) -> None:
        """Count the members that ended; one without success fails the chord."""
        broken = {}
        for id, chord, state in ends:
            if state is not State.SUCCEEDED:
                broken[chord] = state
            elif chord in self.chords:
                self.chords[chord].parts.add(id)
        for id in sorted(broken):
            record = self._undecided(id)
            if record is not None and record.body is not None:
                record.decided_at = self.now()
                self.seen["chord failed"] += 1
                self._give_up([replace(record.body, failure=UPSTREAM, ends_as=broken[id])])
        self._fire({chord for _, chord, _ in ends} - set(broken))

    def _fire(self, ids: Iterable[str]) -> None:
        for id in ids:
            record = self._undecided(id)
            if record is not None and record.body is not None and record.size == len(record.parts):
                record.decided_at = self.now()
                self.seen["chord fired"] += 1
                self.submit(record.body, follows=True)

    def _undecided(self, chord: str | None) -> ChordRecord | None:
        record = self.chords.get(chord or "")
        return record if record is not None and record.decided_at is None else None

    # What people ask for

    def cancel(self, *jobs: Job) -> list[str]:
        """Cancel what waits, and ask what runs to end."""
        answers, waiting = [], [job for job in jobs if job.state in WAITING]
        for job in jobs:
            answers.append("JobFinal" if not job.live else str(State.CANCELLED if job in waiting else State.RUNNING))
            if job.state is State.RUNNING and not job.asked_to_end:
                job.asked_to_end = True
                job.kinds.append(Kind.CANCEL_REQUESTED)
        for job in waiting:
            self._go(job, State.CANCELLED, Kind.CANCELLED)
        self._follow(waiting)
        return answers

    def reopen(self, job: Job) -> str:
        """Send a failed or cancelled job through again, unless its unique key is another's by now."""
        if job.state is State.SUCCEEDED:
            return "JobSucceeded"
        if job.given_up:
            return "JobNeverRan"
        if job.live:
            return "JobNotFinal"
        if job.lost is not None and not self._regain(job, job.lost):
            return "JobKeyTaken"
        job.run_at = job.expires_at = job.worker = job.lost = None
        job.executions = job.deaths = 0
        job.started = job.asked_to_end = False
        self._go(job, State.QUEUED, Kind.REOPENED)
        if job.chord in self.chords:
            self.chords[job.chord].decided_at = None
        return str(State.QUEUED)

    def _regain(self, job: Job, key: Key) -> bool:
        id, until, holder = self._standing(key)
        if holder is not None and holder is not job:
            if holder.live:
                return False
            self._lose(holder, key)
        if id != job.id:
            self.keys[key] = job.id, max(until, self.now())
        return True

    def operate(self, errand: Errand, most: int) -> list[Job]:
        """Take a step of an operation; return the jobs it met, the newest first."""
        wanted = (State.FAILED, State.CANCELLED) if errand.retries else (*WAITING, State.RUNNING)
        left = [job for job in self.in_state(*wanted) if job.key < errand.before]
        left = [job for job in reversed(left) if errand.queue in (None, job.queue)]
        errand.done, met = len(left) <= most, left[:most]
        errand.before = met[-1].key if met else 0
        answers = [self.reopen(job) for job in met] if errand.retries else self.cancel(*met)
        refused = sum(answer.startswith("Job") for answer in answers)
        errand.moved, errand.refused = errand.moved + len(met) - refused, errand.refused + refused
        return met

    # What the keeper does

    def fall_due(self) -> int:
        waiting = self.in_state(State.SCHEDULED, State.RETRYING)
        due = [job for job in waiting if job.run_at is not None and job.run_at <= self.now()]
        for job in due:
            self._go(job, State.QUEUED, None)
        return len(due)

    def expire(self) -> int:
        return len(self.cancel(*self.expired()))

    def rescue(self) -> int:
        """Take jobs from workers that are gone; what has started has died with its worker."""
        lost, outcomes, now = self.orphans(), [], self.now()
        for job in lost:
            attempt = (job.key, job.id, job.attempt, job.task, job.queue)
            pause = 2**job.deaths if job.started and job.deaths else 0
            state, run_at = (State.RETRYING if pause else State.QUEUED), now + pause * SECOND
            death = {"failure": LOST, "death": True, "run_at": run_at} if job.started else {}
            kind = Kind.RESCUED if job.started else Kind.GIVEN_BACK
            outcomes.append(Outcome(*attempt, state, now, kind, **death))
        self.finish(*outcomes)
        return len(lost)

    def prune(self, before: int) -> int:
        """Forget the jobs that ended before a moment, but for members of a chord that is not decided."""
        old = [job for job in self.jobs.values() if (job.finished_at or NEVER) < before]
        gone = [job for job in old if self._undecided(job.chord) is None]
        for job in gone:
            del self.jobs[job.id]
            if job.chord in self.chords:
                self.chords[job.chord].parts.clear()
        self.seen["pruned"] += len(gone)
        self.seen["member kept"] += len(old) - len(gone)
        return len(gone)

    def sweep(self, before: int) -> None:
        """Forget what is older and belongs to nothing any more."""
        self.keys = {key: kept for key, kept in self.keys.items() if kept[0] in self.jobs or kept[1] >= before}
        self.entries = {
            place: entry for place, entry in self.entries.items() if entry.id in self.jobs or entry.made_at >= before
        }
        filled = {job.batch for job in self.jobs.values()}
        self.batches = {id: kept for id, kept in self.batches.items() if id in filled or kept[0] >= before}
        needed = {job.chord for job in self.jobs.values() if (job.finished_at or NEVER) >= before}
        for id, record in list(self.chords.items()):
            if (record.decided_at or record.made_at) < before and (record.decided_at or id not in needed):
                del self.chords[id]

    def _go(self, job: Job, state: State, kind: Kind | None) -> None:
        assert may_move(job.state, state), f"{job.state} -> {state}"
        self.moves[job.state, state] += 1
        job.state = state
        job.finished_at = None if job.live else self.now()
        if kind is not None:
            job.kinds.append(kind)
