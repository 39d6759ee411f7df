"""What attempts say of themselves in Celery's words: `update_state`, the children they made; and what is forgotten.

A remark is a line of history like any other (`finish.note`, with its fence) and is kept beside
the payload for whoever asks Celery. It names its attempt, so a later one is never taken at its word.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.jobs import Kind, Note, Remark, preview
from celeriac.ledger.moves.finish import note
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction

FORGOTTEN = "FORGOTTEN"

_KEEP = Sql(
    "UPDATE payloads SET celery_state = v.state, celery_meta = v.meta FROM {rows} WHERE payloads.job = v.key",
    key="int", state="text", meta="text",
)  # fmt: skip
_ENDED = Sql("SELECT key FROM jobs WHERE id IN ({each}) AND finished_at IS NOT NULL {lock}")
_FORGET = [
    Sql("UPDATE jobs SET result = NULL WHERE key IN ({each_int})"),
    Sql(
        "UPDATE payloads SET result = NULL, traceback = NULL, exception = NULL,"
        f" celery_state = '{FORGOTTEN}', celery_meta = NULL WHERE job IN ({{each_int}})"
    ),
]


def remark(tx: Transaction, remarks: Sequence[Remark]) -> list[bool | Exception]:
    """Keep what running attempts say of themselves; the last word of each counts. Answers whether it was kept."""
    kept = note(tx, [Note(item.key, item.attempt, item.at, *_line(item)) for item in remarks])
    last = {
        item.key: {"key": item.key, "state": item.state, "meta": f'{{"attempt":{item.attempt},"meta":{item.meta}}}'}
        for item, ok in zip(remarks, kept, strict=True)
        if ok is True
    }
    if last:
        tx.run(_KEEP, rows=list(last.values()))
    return kept


def forget(tx: Transaction, ids: Sequence[str]) -> list[Exception | None]:
    """Delete the results of jobs that have ended, and say so; their rows and histories stay."""
    keys = [row.key for row in tx.run(_ENDED, each=list(ids))]
    if keys:
        for statement in _FORGET:
            tx.run(statement, each=keys)
    return [None] * len(ids)


def _line(item: Remark) -> tuple[Kind, dict[str, Any]]:
    """Return a remark as an event: progress if it looks like it, else a message."""
    meta = msgspec.json.decode(item.meta)
    if isinstance(meta, dict) and _is_number(meta.get("current")):
        total = meta["total"] if _is_number(meta.get("total")) else None
        return Kind.PROGRESS, {"value": float(meta["current"]), "total": total, "note": item.state}
    return Kind.MESSAGE, {"data": {"state": item.state, "meta": msgspec.Raw(preview(meta).encode())}}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
