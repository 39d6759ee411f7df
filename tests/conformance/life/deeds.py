"""What may happen in a life: each deed is made in the ledger and in the model, and both must answer the same.

`machine.py` draws them, each as often as its weight says, when it makes sense. A comment with FAULT says what a deed
steps around because the ledger is wrong there: take it out with the fault.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.jobs import Chord, ClaimRequest, Filter, Kind, Note, Receipt, Remark, Submission
from celeriac.ledger import (
    Asked,
    batches,
    cancel,
    claim,
    counts,
    nodes,
    note,
    open_chord,
    operations,
    pruning,
    purge,
    queues,
    remark,
    reopen,
    stale,
    submit,
    upkeep,
)
from celeriac.ledger.batches import BatchReceipt, BatchSubmission
from celeriac.ledger.sql import as_json
from celeriac.states import FINAL, WAITING, State
from conformance.life.model import Answer
from conformance.life.records import Errand
from conformance.life.wishes import PLAIN, QUEUES, end_of, report, wish
from conformance.moves import SECOND, begin, end

if TYPE_CHECKING:
    from conformance.life.machine import Life

Doing: TypeAlias = "Callable[[Life], None]"
Sense: TypeAlias = "Callable[[Life], object]"


@dataclass(frozen=True)
class Deed:
    """Something that may happen: how often it is drawn, and when it makes sense."""

    do: Doing
    weight: int
    when: Sense


DEEDS: dict[str, Deed] = {}


def deed(weight: int, when: Sense = lambda life: True) -> Callable[[Doing], Doing]:
    """Enter a function among the deeds."""

    def entered(do: Doing) -> Doing:
        DEEDS[do.__name__] = Deed(do, weight, when)
        return do

    return entered


# Who submits


@deed(10)
def somebody_submits(life: "Life") -> None:
    """Half of the time that of which the life is made."""
    usual = {"keys": somebody_submits_again, "chords": somebody_submits_a_chord}.get(life.theme)
    if usual is not None and life.sent and life.roll(2):
        usual(life)
    else:
        _send(life, wish(life))


def _send(life: "Life", one: Submission) -> None:
    life.same("submit", _told(life.ask(submit, one)), life.model.submit(one))
    life.sent.append(one)


@deed(3)
def somebody_submits_a_batch(life: "Life") -> None:
    id = life.name("batch")
    key = {"idempotency_key": "a", "fingerprint": "x"} if life.roll(2) else {}
    wishes = tuple(wish(life, batch=id, owner="ann") for _ in range(1 + life.roll(3)))
    _send_batch(life, BatchSubmission(id, "ann", wishes, **key))


def _send_batch(life: "Life", batch: BatchSubmission) -> None:
    answer: BatchReceipt = life.ask(batches.submit_batch, batch)
    told = ("batch replayed", answer.id) if answer.replayed else [_told(receipt) for receipt in answer.receipts]
    life.same("batch", told, life.model.submit_batch(batch))
    life.sent.append(batch)


@deed(6, lambda life: life.sent)
def somebody_submits_again(life: "Life") -> None:
    """The answer was lost, so whoever asked asks again; or somebody else takes the same id."""
    again = life.pick(life.sent[-8:])
    wishes = again.submissions if isinstance(again, BatchSubmission) else (again,)
    if any(life.model.waits(one.id) for one in wishes):
        return  # FAULT of revive.py: a repeated submit opens a job that waits for its canvas, or was given up
    if isinstance(again, BatchSubmission):
        if not any(life.model.taken(one) for one in wishes):  # else nothing of it stays
            _send_batch(life, again)
    elif again.idempotency_key is not None and life.roll(2):
        _send(life, replace(again, id=life.name("job")))
    elif life.roll(6) == 0:
        # FAULT of submit.py: an Idempotency-Key of what is refused takes that of the job with the same id away.
        other = replace(again, owner="eve", idempotency_key=None)
        life.same("submit", _told(life.ask(submit, other)), life.model.submit(other))
    else:
        _send(life, again)


@deed(4)
def somebody_submits_a_chord(life: "Life") -> None:
    id, size = life.name("chord"), life.pick((1, 2, 2, 3))
    # FAULT of revive.py: a body that was given up, and is to run later, goes from failed to scheduled.
    body = replace(wish(life, id=life.name("body")), existing_ok=True, run_at=None, **PLAIN)
    _open(life, Chord(id, size if life.roll(2) else None, (body,)))
    for place in range(size):
        _send(life, replace(wish(life, chord=id, group=id, group_index=place), **PLAIN))
    if life.model.chords[id].size is None:
        life.unsized[id] = size


@deed(4, lambda life: life.unsized)
def somebody_tells_the_size_of_a_chord(life: "Life") -> None:
    _open(life, Chord(*life.unsized.popitem()))


def _open(life: "Life", chord: Chord) -> None:
    life.ask(open_chord, chord)
    life.model.open_chord(chord)


# What workers do


@deed(18, lambda life: life.model.claimable())
def a_worker_claims(life: "Life") -> None:
    slot, limit, after = life.roll(2), 1 + life.roll(3), life.pick(("", "ann", "bob"))
    if life.workers[slot] in life.model.gone and life.roll(2):
        life.register(slot)
    names = life.pick((("default", "big"), ("big", "default")))
    tasks = ("add", "mul") if life.roll(4) else ("add",)
    if life.model.expired():
        limit = 1  # FAULT of claim.py: for each owner whose jobs have all expired, others get fewer
    worker, served = life.workers[slot], dict.fromkeys(names, after)
    taken = life.ask(claim, ClaimRequest(worker, names, as_json(tasks), limit, served=served))
    expected = life.model.claim(worker, names, tasks, limit, after)
    told = "nothing" if not taken else "something"
    life.seen.answers[f"claim: {'a ghost gets ' if worker in life.model.gone else ''}{told}"] += 1
    assert [(one.id, one.attempt) for one in taken] == [(job.id, job.attempt) for job in expected]
    life.claims += taken


@deed(10, lambda life: life.held(started=False))
def a_worker_starts(life: "Life") -> None:
    one = life.any_claim(started=False)
    life.same("start", begin(life.ledger, one), life.model.start(one))


@deed(4, lambda life: life.held())
def a_worker_reports(life: "Life") -> None:
    """Progress, a line of its log, or a message."""
    one, kind, now = life.any_claim(), life.pick((Kind.PROGRESS, Kind.LOG, Kind.MESSAGE)), clock.micros()
    if kind is Kind.MESSAGE:
        kept = life.ask(remark, Remark(one.key, one.attempt, now, "HALF", "{}"))
    else:
        data = {"value": 1.0} if kind is Kind.PROGRESS else {"text": "so far"}
        kept = life.ask(note, Note(one.key, one.attempt, now, kind, data))
    life.same("report", kept, life.model.note(one, kind))


@deed(30, lambda life: life.held())
def a_worker_ends(life: "Life") -> None:
    """One attempt, or several at once; now and then one of them twice."""
    claims = [life.any_claim() for _ in range(life.pick((1, 1, 1, 2, 3)))]
    if life.roll(4):
        claims = list(dict.fromkeys(claims))
    outcomes = []
    for one in claims:
        how = report(life, life.model.jobs.get(one.id))
        life.tell(f"{one.id}, attempt {one.attempt}: {how}")
        outcomes.append(end_of(life, one, how))
    held, expected = end(life.ledger, *outcomes), life.model.finish(*outcomes)
    for one, *answers in zip(outcomes, held, expected, strict=True):
        life.same(f"end as {one.kind}", *answers)


# What people do


@deed(4, lambda life: life.model.jobs)
def somebody_cancels(life: "Life") -> None:
    jobs = life.model.in_state(*((State.RUNNING,) if life.roll(2) else WAITING))
    job = life.pick(jobs if jobs and life.roll(6) else list(life.model.jobs.values()))
    [expected] = life.model.cancel(job)
    life.same("cancel", _word(life.ask(cancel, Asked(SYSTEM, job.id))), expected)


@deed(6, lambda life: life.model.in_state(State.FAILED, State.CANCELLED))
def somebody_reopens(life: "Life") -> None:
    jobs = life.model.in_state(State.FAILED, State.CANCELLED)
    if life.roll(2):
        jobs = [job for job in jobs if job.lost or job.chord] or jobs
    job = life.pick(jobs if life.roll(6) else list(life.model.jobs.values()))
    life.same("reopen", _word(life.ask(reopen, Asked(SYSTEM, job.id))), life.model.reopen(job))


@deed(4)
def somebody_pauses(life: "Life") -> None:
    name = life.pick(QUEUES)
    life.ask(queues.pause, name)
    life.model.paused.add(name)


@deed(6, lambda life: life.model.paused)
def somebody_resumes(life: "Life") -> None:
    name = life.pick(sorted(life.model.paused))
    life.ask(queues.resume, name)
    life.model.paused.discard(name)


@deed(1)
def somebody_purges(life: "Life") -> None:
    name = life.pick(QUEUES)
    waiting = [job for job in life.model.in_state(*WAITING) if job.queue == name]
    life.kept(lambda tx: purge(tx, name), lambda: len(life.model.cancel(*waiting)))


@deed(3, lambda life: life.model.jobs)
def somebody_begins_an_operation(life: "Life") -> None:
    retries, queue = life.roll(2) == 0, life.pick((None, *QUEUES))
    kind = operations.Kind.RETRY if retries else operations.Kind.CANCEL
    begun = life.ask(operations.begin, operations.Wanted(kind, SYSTEM, Filter(queues=(queue,) if queue else ())))
    newest = max(job.key for job in life.model.jobs.values())
    life.errands.append((begun.id, Errand(retries, queue, newest + 1)))


# What time and the keeper do


@deed(3, lambda life: life.model.in_state(*WAITING))
def time_passes(life: "Life") -> None:
    """Before the keeper looks."""
    life.pass_time(life.pick((1, 3)))


@deed(8, lambda life: life.model.in_state(State.SCHEDULED, State.RETRYING))
def jobs_fall_due(life: "Life") -> None:
    life.pass_time(life.pick((2, 2, 5)))
    life.kept(upkeep.fall_due, life.model.fall_due)


@deed(4, lambda life: any(job.expires_at for job in life.model.in_state(*WAITING)))
def jobs_expire(life: "Life") -> None:
    life.pass_time(life.pick((0, 2)))
    life.kept(upkeep.expire, life.model.expire)


@deed(4, lambda life: life.busy())
def a_worker_goes(life: "Life") -> None:
    """It is lost, or ends with jobs in its hands."""
    worker = life.pick(life.busy())
    with life.ledger.transaction() as tx:
        gone = nodes.stop(tx, [worker]) if life.roll(2) else nodes.lose(tx, [worker])
    assert len(gone) == 1
    life.model.gone.add(worker)


@deed(10, lambda life: life.model.orphans())
def jobs_are_rescued(life: "Life") -> None:
    life.kept(upkeep.rescue, life.model.rescue)


@deed(7, lambda life: life.errands)
def the_oldest_operation_goes_on(life: "Life") -> None:
    """It opens one job at a time, as of two with the same unique key only one can be."""
    id, errand = life.errands[0]
    operation, most = operations.operation(life.ledger, SYSTEM, id), 1 if errand.retries else 2
    jobs, after = operations.look(life.ledger, operation, most)
    with life.ledger.transaction() as tx:
        operations.step(tx, operation, jobs, after)
    assert [job.id for job in jobs] == [job.id for job in life.model.operate(errand, most)]
    done = operations.operation(life.ledger, SYSTEM, id)
    told = (done.matched, done.moved, done.refused, done.finished_at is not None)
    assert told == (errand.moved + errand.refused, errand.moved, errand.refused, errand.done)
    if errand.done:
        life.seen.answers[f"{done.kind} operation done"] += 1
        del life.errands[0]


@deed(1)
def counts_are_folded(life: "Life") -> None:
    with life.ledger.transaction() as tx:
        counts.fold_counts(tx)


@deed(3, lambda life: life.model.in_state(*FINAL))
def what_is_old_goes(life: "Life") -> None:
    now = clock.micros()
    before = now - life.pick((0, 1, 6)) * SECOND
    old = [ended.key for ended in pruning.old_jobs(life.ledger, pruning.Ended(), before, 500)]
    life.kept(lambda tx: pruning.prune_jobs(tx, old, before), lambda: life.model.prune(before))
    if life.roll(2):
        return
    for walk in stale.WALKS:
        rows, _ = stale.stale(life.ledger, walk, walk.start, before, now)
        if rows:
            with life.ledger.transaction() as tx:
                stale.drop(tx, walk, rows, before, now)
    life.model.sweep(before)
    for slot, worker in enumerate(life.workers):
        if worker in life.model.gone:  # nobody knows any more that it was lost
            life.register(slot)


def _told(receipt: Receipt | Exception) -> Answer:
    if isinstance(receipt, Exception):
        return (type(receipt).__name__,)
    return "duplicate" if receipt.duplicate else "replayed" if receipt.replayed else "fresh", receipt.id, receipt.state


def _word(answer: State | Exception) -> str:
    return type(answer).__name__ if isinstance(answer, Exception) else str(answer)
