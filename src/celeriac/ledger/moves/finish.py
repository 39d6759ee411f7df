"""What a worker reports of an attempt: it started, it said something, it ended.

Every write is fenced: it counts only while the job is running with the attempt it names, so
a late report of a worker that was given up changes nothing. `decide` is the one place that
says where an ended attempt leads. Next: chords.py, where a member's end may start a body.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from celeriac.failpoints import failpoint
from celeriac.jobs import ErrorCode, Failure, Kind, Note, Outcome, Start, record
from celeriac.ledger.moves.abandon import Taken, behind, tell
from celeriac.ledger.moves.chords import End, open_chord, settle, submit_failed
from celeriac.ledger.moves.errbacks import call_for_lost
from celeriac.ledger.moves.evidence import testify
from celeriac.ledger.moves.submit import submit
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction
from celeriac.states import State, is_final

# `state || ''`: found by its key, never by the index of what runs, which on Postgres is full of rows long gone. Among
# 4,000 of these a look at 20 jobs took 370 µs instead of 75.
_START = Sql(
    "UPDATE jobs SET started_at = v.at, executions = jobs.executions + 1, number = jobs.number + 1,"
    " progress_value = NULL, progress_total = NULL, progress_note = NULL FROM {rows}"
    " WHERE jobs.key = v.key AND jobs.attempt = v.attempt AND jobs.state || '' = 'running' AND jobs.started_at IS NULL"
    " RETURNING jobs.key, jobs.attempt, jobs.number",
    key="int", attempt="int", at="int",
)  # fmt: skip
_NOTE = Sql(
    "UPDATE jobs SET number = jobs.number + v.notes, progress_value = COALESCE(v.value, jobs.progress_value),"
    " progress_total = CASE WHEN v.value IS NULL THEN jobs.progress_total ELSE v.total END,"
    " progress_note = CASE WHEN v.value IS NULL THEN jobs.progress_note ELSE v.note END FROM {rows}"
    " WHERE jobs.key = v.key AND jobs.attempt = v.attempt AND jobs.state || '' = 'running'"
    " RETURNING jobs.key, jobs.attempt, jobs.number, jobs.id",
    key="int", attempt="int", notes="int", value="real", total="real", note="text",
)  # fmt: skip
_HELD = Sql(
    "SELECT jobs.key, jobs.attempt, number, executions, max_attempts, deaths, rerun, cancel_requested_at, started_at,"
    " observed, chord, group_index FROM {rows} CROSS JOIN jobs"
    " WHERE jobs.key = v.key AND jobs.attempt = v.attempt AND jobs.state || '' = 'running' {lock}",
    key="int", attempt="int",
)  # fmt: skip
_END = Sql(
    "UPDATE jobs SET state = v.state, number = jobs.number + v.events, executions = jobs.executions + v.executions,"
    " deaths = jobs.deaths + v.deaths, started_at = v.started_at, finished_at = v.finished_at,"
    " run_at = CASE WHEN v.state = 'retrying' THEN v.run_at ELSE COALESCE(v.run_at, jobs.run_at) END,"
    " claimed_at = CASE WHEN v.finished_at IS NULL THEN NULL ELSE jobs.claimed_at END,"
    " worker = CASE WHEN v.finished_at IS NULL THEN NULL ELSE jobs.worker END,"
    " result = v.result, error_code = v.error_code, error_type = v.error_type, error_message = v.error_message,"
    " task = COALESCE(v.task, jobs.task), queue = COALESCE(v.queue, jobs.queue),"
    " priority = COALESCE(v.priority, jobs.priority)"
    " FROM {rows} WHERE jobs.key = v.key",
    key="int", state="text", events="int", executions="int", deaths="int", started_at="int", finished_at="int",
    run_at="int", result="text", error_code="text", error_type="text", error_message="text",
    task="text", queue="text", priority="int",
)  # fmt: skip
_END_PAYLOAD = Sql(
    "UPDATE payloads SET result = v.result, traceback = v.traceback, exception = v.exception,"
    " celery_meta = v.children FROM {rows} WHERE payloads.job = v.key",
    key="int", result="text", traceback="text", exception="text", children="text",
)  # fmt: skip
_NEXT_MESSAGE = Sql(
    "UPDATE payloads SET headers = v.headers, properties = v.properties, body = v.body FROM {rows}"
    " WHERE payloads.job = v.key",
    key="int", headers="text", properties="text", body="text",
)  # fmt: skip


def start(tx: Transaction, starts: Sequence[Start]) -> list[bool | Exception]:
    """Note that user code of these attempts began. Answers whether the attempt still held its job."""
    ats = {(item.key, item.attempt): item.at for item in starts}
    rows = [{"key": key, "attempt": attempt, "at": at} for (key, attempt), at in ats.items()]
    begun = {(row.key, row.attempt): row.number for row in tx.run(_START, rows=rows)}
    for (key, attempt), number in begun.items():
        tx.record(key, number, ats[key, attempt], Kind.STARTED, {"attempt": attempt})
    return [(item.key, item.attempt) in begun for item in starts]


def note(tx: Transaction, notes: Sequence[Note]) -> list[bool | Exception]:
    """Add lines to the history of running attempts; the last progress becomes the job's."""
    grouped: dict[tuple[int, int], list[Note]] = {}
    for item in notes:
        grouped.setdefault((item.key, item.attempt), []).append(item)
    rows = []
    for (key, attempt), lines in grouped.items():
        last: dict[str, Any] = next((line.data for line in reversed(lines) if line.kind is Kind.PROGRESS), {})
        rows.append({"key": key, "attempt": attempt, "notes": len(lines), "value": last.get("value"),
                     "total": last.get("total"), "note": last.get("note")})  # fmt: skip
    kept = {(row.key, row.attempt): row for row in tx.run(_NOTE, rows=rows)}
    for holder, row in kept.items():
        lines = grouped[holder]
        for number, line in enumerate(lines, row.number - len(lines) + 1):
            tx.record(row.key, number, line.at, line.kind, line.data)
        tx.steps[row.id] = row.number
    return [(item.key, item.attempt) in kept for item in notes]


@record
class Held:
    """What the ledger knows of a job that an attempt still holds."""

    key: int
    attempt: int
    number: int
    executions: int
    max_attempts: int | None
    deaths: int
    rerun: int
    cancel_requested_at: int | None
    started_at: int | None
    observed: int
    chord: str | None
    group_index: int | None


def decide(outcome: Outcome, held: Held, max_deaths: int) -> Outcome:
    """Return where this outcome really leads, given what was asked of the job meanwhile.

    A cancel that was asked for stops every further attempt. A lost worker ends a job that must
    not run twice, and quarantines one that lost `max_deaths` workers. `max_attempts` caps executions.
    """
    if is_final(outcome.state):
        return outcome
    if held.cancel_requested_at is not None:
        outcome = replace(outcome, sends=(), chords=())
        return replace(outcome, state=State.CANCELLED, kind=Kind.CANCELLED, data=None, failure=None, run_at=None)
    executions = held.executions + (outcome.started_at is not None and held.started_at is None)
    failure = outcome.failure
    if outcome.death and failure is not None:
        if not held.rerun:
            return _failed(outcome, failure)
        if held.deaths + 1 >= max_deaths:
            message = f"It lost {held.deaths + 1} workers while running. {failure.message}"
            return _failed(outcome, replace(failure, code=ErrorCode.QUARANTINED, message=message), Kind.QUARANTINED)
    if failure is not None and held.max_attempts is not None and executions >= held.max_attempts:
        return _failed(outcome, failure)
    if outcome.replaced:  # it goes on as what it sends, and waits for the last of it (revive.py)
        return outcome
    if outcome.state is State.RETRYING and outcome.run_at is None:  # countdown=0 is no time to Celery, yet due
        outcome = replace(outcome, run_at=outcome.at)
    return replace(outcome, sends=(), chords=())  # it goes on: nothing follows it yet


def _failed(outcome: Outcome, failure: Failure, kind: Kind = Kind.FAILED) -> Outcome:
    data = {
        "attempt": outcome.attempt,
        "code": str(failure.code),
        "type": failure.type,
        "message": failure.message[:500],
    }
    return replace(outcome, state=State.FAILED, kind=kind, data=data, failure=failure, run_at=None)


def finish(tx: Transaction, outcomes: Sequence[Outcome]) -> list[bool | Exception]:
    """End attempts, together with what they send on. Answers whether each was accepted.

    A stale outcome (the job is no longer running with this attempt) changes nothing, and what
    it wanted to send is dropped with it. Safe to repeat.
    """
    rows = [{"key": outcome.key, "attempt": outcome.attempt} for outcome in outcomes]
    held = {(row.key, row.attempt): Held(*tuple(row)) for row in tx.run(_HELD, rows=rows)}
    accepted: list[tuple[Outcome, Held]] = []
    answers: list[bool | Exception] = []
    for outcome in outcomes:
        holder = held.pop((outcome.key, outcome.attempt), None)  # popped: a second outcome of one attempt is stale
        answers.append(holder is not None)
        if holder is not None:
            decided = decide(outcome, holder, tx.max_deaths)
            if outcome.death:
                decided = testify(tx, outcome, decided, holder.deaths)
            accepted.append((decided, holder))
    if accepted:
        _write(tx, accepted)
        failpoint("finish-before-links")
        taken = _send_on(tx, [outcome for outcome, _ in accepted])
        failpoint("finish-before-chords")
        ends = [_end(outcome, holder) for outcome, holder in accepted if is_final(outcome.state) and holder.chord]
        taken |= settle(tx, ends)
        if taken:
            numbers = {item.id: (item.key, tx.ends[item.id]) for item, _ in accepted if is_final(item.state)}
            tell(tx, taken, numbers)
    return answers


def _write(tx: Transaction, accepted: list[tuple[Outcome, Held]]) -> None:
    rows, payloads, messages = [], [], []
    for outcome, held in accepted:
        final = is_final(outcome.state)
        begins = outcome.started_at is not None and held.started_at is None
        number = held.number
        if begins:
            number += 1
            tx.record(held.key, number, outcome.started_at or outcome.at, Kind.STARTED, {"attempt": outcome.attempt})
        number += 1
        tx.record(held.key, number, outcome.at, outcome.kind, outcome.data)
        failure = outcome.failure
        rows.append({
            "key": held.key, "state": outcome.state, "events": number - held.number, "executions": int(begins),
            "deaths": int(outcome.death), "started_at": (held.started_at or outcome.started_at) if final else None,
            "finished_at": outcome.at if final else None, "run_at": outcome.run_at,
            "result": outcome.result and outcome.preview, "error_code": failure and failure.code,
            "error_type": failure and failure.type, "error_message": failure and failure.message[:2000],
            "task": outcome.new_task, "queue": outcome.new_queue, "priority": outcome.new_priority,
        })  # fmt: skip
        if outcome.result is not None or failure is not None:
            payloads.append({"key": held.key, "result": outcome.result, "traceback": failure and failure.traceback,
                             "exception": failure and failure.celery, "children": outcome.children})  # fmt: skip
        if outcome.message is not None and not final:
            message = outcome.message
            messages.append({"key": held.key, "headers": message.headers, "properties": message.properties,
                             "body": message.body})  # fmt: skip
        _tell(tx, outcome, held, number)
    tx.write(_END, rows=rows)
    if payloads:
        tx.write(_END_PAYLOAD, rows=payloads)
    if messages:
        tx.write(_NEXT_MESSAGE, rows=messages)


def _tell(tx: Transaction, outcome: Outcome, held: Held, number: int) -> None:
    queue, task = outcome.new_queue or outcome.queue, outcome.new_task or outcome.task
    tx.count(State.RUNNING, outcome.queue, outcome.task, -1)
    tx.count(outcome.state, queue, task, 1)
    if is_final(outcome.state):
        tx.ends[outcome.id] = number
    elif outcome.state is not State.QUEUED:
        tx.wait_until(outcome.run_at)
    elif not held.observed:  # else its own broker gives it out
        tx.wake(queue, outcome.id)


def _send_on(tx: Transaction, outcomes: Sequence[Outcome]) -> Taken:
    """Submit what the accepted attempts sent, and give up what was to follow those without success."""
    chords = [chord for outcome in outcomes for chord in outcome.chords]
    if chords:
        open_chord(tx, chords)
    sends = [submission for outcome in outcomes for submission in outcome.sends]
    if sends:
        submit(tx, sends)
    given_up = {
        outcome.key: (outcome.state, outcome.failure)
        for outcome in outcomes
        if is_final(outcome.state) and outcome.state is not State.SUCCEEDED
    }
    call_for_lost(tx, given_up)
    return submit_failed(tx, behind(tx, given_up))


def _end(outcome: Outcome, held: Held) -> End:
    return End(outcome.id, held.chord or "", held.group_index or 0, outcome.state, outcome.result, outcome.failure)
