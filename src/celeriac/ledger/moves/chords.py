"""Chords: the last success of a set of jobs starts a body, in the same transaction.

The body's messages are made when the chord is opened, with a mark where the results go, so
that whoever ends the last member (a worker, a rescue, a cancel) can fire it without running
any of the app's code. A part is counted once, a body is sent once, whatever is repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from celeriac import clock
from celeriac.jobs import CHORD_RESULTS, Chord, ErrorCode, Failure, Message, Receipt, Submission
from celeriac.ledger.moves.abandon import GivenUp, Taken, links_behind
from celeriac.ledger.moves.errbacks import call_for_given_up
from celeriac.ledger.moves.submit import submit
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State

_OPEN = Sql(
    "INSERT INTO chords (id, size, body, created_at) SELECT v.id, v.size, v.body, v.created_at FROM {rows} WHERE true"
    " ON CONFLICT (id) DO UPDATE SET size = COALESCE(excluded.size, chords.size),"
    " body = CASE WHEN excluded.body = '' THEN chords.body ELSE excluded.body END",
    id="text", size="int", body="text", created_at="int",
)  # fmt: skip
_PARTS = Sql(
    "INSERT INTO chord_parts (chord, job, part, result) SELECT v.chord, v.job, v.part, v.result FROM {rows} WHERE true"
    " ON CONFLICT DO NOTHING",
    chord="text", job="text", part="int", result="text",
)  # fmt: skip
_UNFIRED = Sql("SELECT id, size, body FROM chords WHERE fired_at IS NULL AND id IN ({each}) ORDER BY id {lock_row}")
_FIRED = Sql("UPDATE chords SET fired_at = :now WHERE id IN ({each})")
_RESULTS = Sql("SELECT chord, result FROM chord_parts WHERE chord IN ({each}) ORDER BY chord, part, job")
_SIZES = Sql("SELECT chord, COUNT(*) AS parts FROM chord_parts WHERE chord IN ({each}) GROUP BY chord")

_RESULTS_AS_JSON = as_json(CHORD_RESULTS)
_decode = msgspec.json.Decoder(Chord).decode


@dataclass(frozen=True, slots=True)
class End:
    """A member of a chord that reached a final state; `part` is its place in the list of results."""

    job: str
    chord: str
    part: int
    state: State
    result: str | None
    failure: Failure | None


def open_chord(tx: Transaction, chords: Sequence[Chord]) -> list[Exception | None]:
    """Keep a chord's body, its size, or both; a second call completes the first."""
    now = clock.micros()
    rows: dict[str, dict[str, Any]] = {}  # one for each chord: Postgres updates no row twice in a statement
    for chord in chords:
        row = rows.setdefault(chord.id, {"id": chord.id, "size": None, "body": "", "created_at": now})
        if chord.size is not None:
            row["size"] = chord.size
        if chord.body or chord.chords:
            row["body"] = as_json(chord)
    tx.run(_OPEN, rows=list(rows.values()))
    _fire_complete(tx, [chord.id for chord in chords if chord.size is not None])
    return [None] * len(chords)


def settle(tx: Transaction, ends: Sequence[End]) -> Taken:
    """Count the ended members and fire what is complete; a member that did not succeed fails the body.

    Returns what was given up that way.
    """
    if not ends:
        return {}
    parts = [
        {"chord": end.chord, "job": end.job, "part": end.part, "result": end.result}
        for end in ends
        if end.state is State.SUCCEEDED
    ]
    if parts:
        tx.run(_PARTS, rows=parts)
    broken = {end.chord: end for end in ends if end.state is not State.SUCCEEDED}
    taken = _fail(tx, broken) if broken else {}
    _fire_complete(tx, list({end.chord for end in ends} - set(broken)))
    return taken


def _fire_complete(tx: Transaction, ids: list[str]) -> None:
    waiting = {row.id: row for row in tx.run(_UNFIRED, each=ids)} if ids else {}
    if not waiting:
        return
    counted = {row.chord: row.parts for row in tx.run(_SIZES, each=list(waiting))}
    complete = [id for id, row in waiting.items() if row.body and row.size == counted.get(id, 0)]
    if not complete:
        return
    results: dict[str, list[str]] = {id: [] for id in complete}
    for row in tx.run(_RESULTS, each=complete):
        results[row.chord].append(row.result if row.result is not None else "null")
    tx.run(_FIRED, each=complete, now=clock.micros())
    for id in complete:
        chord = _filled(_decode(waiting[id].body), "[" + ",".join(results[id]) + "]")
        if chord.chords:
            open_chord(tx, chord.chords)
        submit(tx, chord.body)


def _filled(chord: Chord, results: str) -> Chord:
    """Put the results where the mark stands. Chords within wait for results of their own."""

    def filled(submission: Submission) -> Submission:
        message = submission.message
        return replace(
            submission,
            args=submission.args.replace(_RESULTS_AS_JSON, '["…"]'),  # results may hold secrets; lists show this
            message=Message(
                message.headers.replace(CHORD_RESULTS, "…"),
                message.properties,
                message.body.replace(_RESULTS_AS_JSON, results),
            ),
        )

    return replace(chord, body=tuple(filled(submission) for submission in chord.body))


def _fail(tx: Transaction, broken: dict[str, End]) -> Taken:
    """Record the bodies of chords that can no longer complete as failed, without running them."""
    waiting = [row for row in tx.run(_UNFIRED, each=list(broken)) if row.body]
    taken: Taken = {}
    if not waiting:
        return taken
    tx.run(_FIRED, each=[row.id for row in waiting], now=clock.micros())
    for row in waiting:
        end = broken[row.id]
        why = f"Dependency {end.job} {end.state}"
        if end.failure:
            why += f": {end.failure.type}: {end.failure.message[:500]}"
        exception: dict[str, Any] = {"exc_type": "ChordError", "exc_message": [why], "exc_module": "celery.exceptions"}
        failure = Failure(ErrorCode.UPSTREAM, "ChordError", why, celery=as_json(exception))
        chord = _decode(row.body)
        if chord.chords:
            open_chord(tx, chord.chords)
        body = [replace(item, failure=failure, ends_as=end.state, existing_ok=True) for item in chord.body]
        taken |= submit_failed(tx, body, end.job)
        call_for_given_up(tx, body)
    return taken


def submit_failed(tx: Transaction, submissions: Sequence[Submission], because: str | None = None) -> Taken:
    """Record jobs that will never run, with the links behind them, and tell the chords they are members of.

    Returns what was given up that way: because of one job, or each because of its parent.
    """
    if not submissions:
        return {}
    behind = [
        link
        for item in submissions
        for link in links_behind(
            GivenUp(item.id, item.queue, item.owner, item.root, item.message.body, item.ends_as, item.failure)
        )
    ]
    causes = {item.id: because or item.parent or "" for item in submissions}
    causes |= {link.id: link.parent or "" for link in behind}
    submissions = [*submissions, *behind]
    receipts = submit(tx, submissions)
    # Without a key, or as a repeated submit, it was there before: given up long ago, or ended by itself.
    fresh = [answer.id for answer in receipts if isinstance(answer, Receipt) and answer.key and not answer.replayed]
    new = {id: causes[id] for id in fresh}
    return new | settle(tx, [
        End(item.id, item.chord, item.group_index or 0, item.ends_as, None, item.failure)
        for item in submissions
        if item.chord
    ])  # fmt: skip
