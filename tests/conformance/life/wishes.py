"""What is submitted in a life, and how its attempts end: by chance, but so that something follows.

Called by the deeds; chance is the life's own (`roll`, `pick`). What the ledger makes of it, model.py says.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celeriac import clock
from celeriac.jobs import Claimed, Kind, Outcome, Submission, Unique
from celeriac.states import State
from conformance.life.model import LOST
from conformance.life.records import Job, link_to, message_before
from conformance.moves import SECOND, failure, given_back, outcome, retry, submission, success

if TYPE_CHECKING:
    from conformance.life.machine import Life

QUEUES = ("default", "default", "big")
TASKS = ("add", "add", "mul")
OWNERS = ("ann", "ann", "bob")
# How attempts end, by the luck of a life. A job must die twice to be quarantined; a chord needs nothing but successes.
REPORTS = {
    "mixed": ("succeed", "succeed", "fail", "fail", "retry", "retry", "die", "give back", "go on as a canvas"),
    "good": ("succeed",) * 6 + ("retry", "go on as a canvas"),
    "bad": ("die",) * 5 + ("succeed", "fail", "retry"),
}
# What is special about jobs, by the theme of a life.
SPECIAL = {
    "everything": ("nothing", "nothing", "chain", "unique", "keyed", "later", "expires"),
    "keys": ("nothing", "unique", "unique", "unique", "unique for a while", "keyed", "keyed"),
    "chords": ("nothing", "nothing", "nothing", "chain"),
}
PLAIN: dict[str, Any] = {"unique": None, "idempotency_key": None}


def wish(life: "Life", **more: Any) -> Submission:
    """A job with something special about it."""
    changes: dict[str, Any] = {
        "id": life.name("job"), "queue": life.pick(QUEUES), "task": life.pick(TASKS), "owner": life.pick(OWNERS),
        "priority": life.pick((0, 0, 1)), "rerun": life.roll(4) > 0, "max_attempts": life.pick((None, None, 1, 2)),
        **more,
    }  # fmt: skip
    match life.pick(SPECIAL[life.theme]):
        case "chain":
            changes["message"] = message_before(*_chain(life, changes["owner"]))
        case "unique":
            changes["unique"] = Unique("a")
        case "unique for a while":
            changes["unique"] = Unique("a", 5)
        case "later":
            changes["run_at"] = clock.micros() + 5 * SECOND
        case "expires":
            changes["expires_at"] = clock.micros() + life.pick((2, 4)) * SECOND
        case "keyed" if "batch" not in more:
            changes |= {"idempotency_key": life.pick("ab"), "fingerprint": life.pick("xxy")}
    return submission(**changes)


def _chain(life: "Life", owner: str) -> list[dict[str, object]]:
    """The signatures of one or two jobs to follow; keeps what is sent when it is their turn."""
    ids = [life.name("link") for _ in range(1 + life.roll(2))]
    for place, id in enumerate(ids, 1):
        life.links[id] = submission(id=id, owner=owner, message=message_before(*map(link_to, ids[place:])))
    return [link_to(id) for id in ids]


def report(life: "Life", job: Job | None) -> str:
    """How an attempt ends that may hold this job. What was opened again succeeds more often: others wait for it."""
    if job is not None and job.asked_to_end and life.roll(2):
        return "stop"
    if job is not None and Kind.REOPENED in job.kinds and life.roll(2):
        return "succeed"
    chosen = life.pick(REPORTS[life.luck])
    if chosen == "go on as a canvas" and (job is None or job.unique is not None):
        return "give back"  # FAULT of revive.py: a job comes back with its canvas though its unique key is another's
    return chosen


def end_of(life: "Life", claim: Claimed, how: str) -> Outcome:
    """The outcome of an attempt, with what it sends on, and when it began, if nobody was told."""
    job = life.model.jobs.get(claim.id)
    sends = (wish(life, id=life.name("call")),) if life.roll(4) == 0 else ()
    if job is not None and job.chain and how == "succeed":
        sends = (life.links[job.chain[0]], *sends)
    fields: dict[str, Any] = {"sends": sends}
    if (job is None or not job.started) and (how == "die" or life.roll(2)):
        fields["started_at"] = clock.micros()
    match how:
        case "succeed":
            return success(claim, **fields)
        case "fail":
            return failure(claim, **fields)
        case "retry":
            if life.roll(3) == 0:
                fields |= {"new_queue": life.pick(QUEUES), "new_priority": life.roll(2)}
            return retry(claim, life.pick((0, 0, 3)), **fields)
        case "die":
            fields |= {"data": {"attempt": claim.attempt}, "failure": LOST, "death": True}
            return replace(retry(claim, 1, **fields), kind=Kind.RESCUED)
        case "stop":
            return outcome(claim, State.CANCELLED, Kind.CANCELLED, **fields | {"sends": ()})
        case "go on as a canvas" if job is not None:
            fields["sends"] = (_canvas(life, job),)
            return outcome(claim, State.RETRYING, Kind.RETRYING, replaced=True, **fields)
    return given_back(claim, **fields)


def _canvas(life: "Life", job: Job) -> Submission:
    """The first task of a chain that takes a job's place; the next one has its id."""
    links = [link_to(id, life.model.chord_of(id)) for id in (job.id, *job.chain)]
    life.links[job.id] = submission(
        id=job.id, task=job.task, owner=job.owner, queue=life.pick(QUEUES), message=message_before(*links[1:]),
        chord=job.chord, group=job.chord,
    )  # fmt: skip
    return submission(id=life.name("canvas"), owner=job.owner, message=message_before(*links))
