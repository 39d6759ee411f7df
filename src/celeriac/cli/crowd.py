"""Following many jobs at once: a bar over all, bars for those that run, a line for each that ends.

Called by `watch` and by `submit --file --wait`. Whoever is watched is settled at the beginning; what
comes later is not. Results go to stdout, one line a job: JSON, or its id, task and state.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from celeriac.cli.following import LOOK_SECONDS, bars, interruptible, say, update
from celeriac.cli.output import count, json_line, notes, suggest
from celeriac.cli.trouble import FAILED
from celeriac.states import State, is_final

if TYPE_CHECKING:
    from rich.progress import Progress

    from celeriac.client import Client

Json = dict[str, Any]
MOST = 10_000
SHOWN = 8
PAGE = 200


def by_ids(client: "Client", ids: Iterable[str], as_json: bool) -> int:
    """Follow jobs by their ids; returns the exit code."""
    jobs = [client.job(id) for id in dict.fromkeys(ids)]
    return _follow(jobs, lambda left: (client.job(id) for id in left), as_json)


def by_filter(client: "Client", filter: Json, as_json: bool) -> int:
    """Follow the jobs that match a filter, MOST of them; returns the exit code.

    Those that have ended count. Raises ClientError for a batch that is not there.
    """
    for batch in filter.get("batch", "").split(","):
        if batch:
            client.batch(batch)
    watched = list(islice(client.jobs(**filter, limit=PAGE), MOST))
    if len(watched) == MOST:
        notes().print(f"Only the newest {MOST:,} are watched.", style="yellow")
    # A job that has moved on is in another state now.
    wider = {name: value for name, value in filter.items() if name != "state"}

    def look(left: set[str]) -> Iterator[Json]:
        missing = set(left)
        for job in client.jobs(**wider, limit=PAGE):
            if job["id"] in missing:
                missing.discard(job["id"])
                yield job
            if not missing:
                return

    return _follow(watched, look, as_json)


def _follow(jobs: list[Json], look: Callable[[set[str]], Iterable[Json]], as_json: bool) -> int:
    states: dict[str, int] = {}
    left = {job["id"] for job in jobs}
    with interruptible("The jobs go on. Look at them with `celeriac jobs`."), bars() as bar:
        overall = bar.add_task("all jobs", total=len(left), note="")
        running: dict[str, Any] = {}
        while True:
            for job in jobs:
                if is_final(job["state"]) and job["id"] in left:
                    left.discard(job["id"])
                    states[job["state"]] = states.get(job["state"], 0) + 1
                    say(bar, json_line(job) if as_json else f"{job['id']}  {job['task']}  {job['state']}")
            bar.update(overall, completed=sum(states.values()), note=_told(states))
            _draw(bar, running, [job for job in jobs if job["state"] == State.RUNNING])
            if not left:
                break
            time.sleep(LOOK_SECONDS)
            jobs = list(look(set(left)))
            left &= {job["id"] for job in jobs}  # one that was pruned meanwhile will not be seen again
    if not as_json:
        notes().print(f"{count(sum(states.values()), 'job')}: {_told(states) or 'nothing to watch'}.")
        suggest("celeriac jobs --state failed" if states.get(State.FAILED) else "celeriac jobs")
    return FAILED if set(states) - {State.SUCCEEDED} else 0


def _draw(bar: "Progress", drawn: dict[str, Any], running: list[Json]) -> None:
    """Keep a bar for each running job, SHOWN at most."""
    shown = {job["id"]: job for job in running[:SHOWN]}
    for id in set(drawn) - set(shown):
        bar.remove_task(drawn.pop(id))
    for id, job in shown.items():
        if id not in drawn:
            drawn[id] = bar.add_task(job["task"], total=None, note="")
        update(bar, drawn[id], job)


def _told(states: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in states.items())
