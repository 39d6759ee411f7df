"""What must hold after any run, whatever was killed: the invariants, checked against the ledger itself.

I1 what was acknowledged is there · I2 every job has ended · I3 one final state, entered once ·
I4 attempts grow, and at most one completion of each counts · I8 counts equal a recount ·
I9 events are numbered without a gap and end with the final state. I5 (what runs twice) and I6 (unique keys) need
what a run has noted beside the ledger: faults/evidence.py. I7 (slots) comes with schedules, I10 with an audit.
"""

import json
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import text

from celeriac.ledger import Ledger, read
from celeriac.states import FINAL


def violations(ledger: Ledger, acknowledged: Iterable[str] = (), ended: bool = True) -> list[str]:
    """Return everything that does not hold, one sentence each."""
    with ledger.reading() as connection:
        jobs = connection.execute(text("SELECT * FROM jobs ORDER BY key")).all()
        events: dict[int, list] = {}
        for event in connection.execute(text("SELECT * FROM events ORDER BY job, number")):
            events.setdefault(event.job, []).append(event)
        counts = read.all_counts(connection)
    wrong = [f"I1: {id} was acknowledged and is gone" for id in set(acknowledged) - {job.id for job in jobs}]
    for job in jobs:
        wrong += [f"{told} ({job.task} {job.id})" for told in _job_violations(job, events.get(job.key, []), ended)]
    recount = Counter((job.state, job.queue, job.task) for job in jobs)
    if counts != dict(recount):
        wrong.append(f"I8: counts {counts} are not {dict(recount)}")
    return wrong


def _job_violations(job, events, ended) -> Iterable[str]:
    if ended and job.state not in FINAL:
        yield f"I2: still {job.state}"
    kinds = [event.kind for event in events]
    if [event.number for event in events] != list(range(1, len(events) + 1)) or len(events) != job.number:
        yield f"I9: numbers {[event.number for event in events]} of {job.number}"
    finals = [kind for kind in kinds if kind in FINAL or kind == "quarantined"]
    reopened = kinds.count("reopened")
    if job.state in FINAL and len(finals) != reopened + 1:
        yield f"I3: ended {len(finals)} times: {kinds}"
    if job.state in FINAL and kinds[-1] not in (job.state, "quarantined"):
        yield f"I9: {job.state}, but the last event is {kinds[-1]}"
    attempts = [json.loads(event.data)["attempt"] for event in events if event.kind == "claimed"]
    if attempts != sorted(set(attempts)):
        yield f"I4: attempts {attempts}"
    ends = [
        json.loads(event.data or "{}").get("attempt")
        for event in events
        if event.kind in ("succeeded", "failed", "retrying", "rescued", "given-back")
    ]
    counted = [attempt for attempt in ends if attempt is not None]
    if len(counted) != len(set(counted)):
        yield f"I4: an attempt ended twice: {counted}"
