"""Evidence: what is known of every worker that died with a job, put where its people look.

Called by `finish` for an attempt that took its worker with it. What the worker's node knows comes with the outcome
(`worker/evidence.py`); when the node itself is gone, the lines that the attempt had logged are still here.
"""

from dataclasses import replace
from typing import Any

import msgspec

from celeriac.jobs import Kind, Outcome
from celeriac.ledger.sql import Sql
from celeriac.ledger.store import Transaction

LINES = 20
_SAID = Sql(
    "SELECT kind, data FROM events WHERE job = :job AND kind IN ('log', 'claimed') ORDER BY number DESC LIMIT :most"
)
_DEATHS = Sql("SELECT data FROM events WHERE job = :job AND kind = 'rescued' ORDER BY number DESC LIMIT :most")


def testify(tx: Transaction, told: Outcome, decided: Outcome, deaths_before: int) -> Outcome:
    """Return the decided outcome of an attempt with all that is known of its worker's death, and of those before."""
    if decided.failure is None:  # somebody had asked to cancel it anyway
        return decided
    tx.flush()  # what it said may have come together with its end
    death = dict(told.data or {})
    death["lines"] = death.get("lines") or _said(tx, told.key)
    death["message"] = (told.failure or decided.failure).message[:500]
    before = tx.run(_DEATHS, job=told.key, most=deaths_before).all() if deaths_before else []
    deaths = [*(msgspec.json.decode(row.data) for row in reversed(before)), death]
    data = death | (decided.data or {})
    if decided.kind is Kind.QUARANTINED:
        data["deaths"] = deaths
    text = "\n".join(_told(number, death) for number, death in enumerate(deaths, 1))
    return replace(decided, data=data, failure=replace(decided.failure, traceback=text))


def _said(tx: Transaction, key: int) -> list[str]:
    lines: list[str] = []
    for row in tx.run(_SAID, job=key, most=LINES):
        if row.kind == Kind.CLAIMED:  # before it was another attempt
            break
        lines.append(str(msgspec.json.decode(row.data).get("text", "")))
    return lines[::-1]


def _told(number: int, death: dict[str, Any]) -> str:
    worker = str(death.get("worker") or "unknown").partition("/")[0]
    process = f", process {death['pid']}" if death.get("pid") else ""
    head = f"Death {number}: attempt {death.get('attempt')}, worker {worker}{process}: {death.get('message', '')}"
    lines = [f"  {line}" for line in death.get("lines") or ()]
    said = ["Its last lines:", *lines] if lines else []
    stack = [str(death["stack"])] if death.get("stack") else []
    return "\n".join([head, *said, *stack]) + "\n"
