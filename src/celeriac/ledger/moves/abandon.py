"""Abandon: when a job ends without success, what was to follow it in its chain is given up with it.

The links behind it are recorded under the ids they would have had, failed or cancelled as it
is, so that whoever waits for the last one is told. Nothing of the app's code is needed, so
it holds for a cancel, an expiry and a rescue as well. `revive.py` takes it back.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from celeriac.jobs import ErrorCode, Failure, Message, Submission, parts_of
from celeriac.ledger.sql import Sql, as_json
from celeriac.ledger.store import Transaction
from celeriac.states import State

_BODIES = Sql(
    "SELECT jobs.key, jobs.id, jobs.queue, jobs.owner, jobs.root, payloads.body"
    " FROM payloads JOIN jobs ON jobs.key = payloads.job WHERE payloads.job IN ({each_int})"
)


# What was given up: a job's id -> that of the job because of which.
Taken: TypeAlias = dict[str, str]
ALSO_MOST = 100


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A job that ended as FAILED or CANCELLED, as much of it as those behind it inherit."""

    id: str
    queue: str
    owner: str
    root: str | None
    body: str
    state: State
    failure: Failure | None


def behind(tx: Transaction, ended: Mapping[int, tuple[State, Failure | None]]) -> list[Submission]:
    """Return what can no longer run because of jobs (by key) that ended so, ready to be recorded."""
    rows = tx.run(_BODIES, each=list(ended)).all() if ended else []
    return [
        link
        for row in rows
        for link in links_behind(GivenUp(row.id, row.queue, row.owner, row.root, row.body, *ended[row.key]))
    ]


def links_behind(job: GivenUp) -> list[Submission]:
    """Return the links of its chain that a job takes with it."""
    return [_given_up(link, job) for link in links(job.body)]


def tell(tx: Transaction, taken: Taken, ended: Mapping[str, tuple[int, int]]) -> None:
    """Add to the last events of jobs (by id: key and number of the event) what was given up because of them."""
    also: dict[str, list[str]] = {}
    for id, cause in taken.items():
        for _ in taken:  # up to the one that began it
            if cause in ended or cause not in taken:
                break
            cause = taken[cause]
        also.setdefault(cause, []).append(id)
    for cause in also.keys() & ended.keys():
        key, number = ended[cause]
        tx.amend(key, number, also=also[cause][:ALSO_MOST], also_count=len(also[cause]))


def links(body: str) -> Iterator[dict[str, Any]]:
    """Yield the signatures that follow in the chain of a task message, nearest first.

    A chord stands for its body, a group or a chain for its members: those have ids to wait for.
    """
    _, _, canvas = parts_of(body)
    waiting = deque(reversed(canvas.get("chain") or []))
    while waiting:
        signature = waiting.popleft()
        kind, keywords = signature.get("subtask_type"), signature.get("kwargs") or {}
        if kind == "chord":
            waiting.appendleft(keywords.get("body") or {})
        elif kind in ("group", "chain"):
            waiting.extendleft(reversed(keywords.get("tasks") or []))
        elif (signature.get("options") or {}).get("task_id"):
            yield signature


def _given_up(link: dict[str, Any], job: GivenUp) -> Submission:
    options, task, keywords = link.get("options") or {}, link["task"], link.get("kwargs") or {}
    id, group, failure = options["task_id"], options.get("group_id"), job.failure
    why = f"Job {job.id}, which it waits for, {job.state}"
    if failure is not None:
        why = f"{why}: {failure.message}"[:2000]
    headers = {"task": task, "id": id, "root_id": job.root, "parent_id": job.id, "retries": 0}
    # No preview of arguments: what of them is secret only the app knows (app/redaction.py).
    return Submission(
        id=id, task=task, queue=options.get("queue") or job.queue, owner=job.owner,
        message=Message(as_json(headers), "{}", json.dumps([link.get("args") or [], keywords, {}])),
        parent=job.id, root=job.root, group=group, group_index=options.get("group_index"),
        chord=group if options.get("chord") else None, ends_as=job.state, existing_ok=True,
        failure=Failure(ErrorCode.UPSTREAM, failure.type if failure else "Upstream", why,
                        celery=failure.celery if failure else None),
    )  # fmt: skip
