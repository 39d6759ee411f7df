"""`celeriac submit --file`: a job for each line of JSON, in batches, resumable.

A batch is accepted whole or not at all, and its Idempotency-Key is one key with the batch's number; so
the same command with that key goes on where it broke off, and makes nothing twice.
"""

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from celeriac.cli.following import bars, interruptible
from celeriac.cli.output import count, notes, print_json, suggest
from celeriac.errors import CeleriacError, Fault, InvalidRequest
from celeriac.jobs import new_id

if TYPE_CHECKING:
    from celeriac.client import Client

BATCH = 1000
MOST_WATCHED = 100  # batches that the API takes in one filter
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A job to submit, and where in the file it stands."""

    number: int
    job: Json


def submit(client: "Client", file: Path, task: str | None, options: Json, *, wait: bool, as_json: bool) -> int:
    """Submit every line; returns the exit code. With `wait` the jobs are followed to their ends."""
    key = options.pop("idempotency_key", None) or new_id()
    batches: list[str] = []
    jobs = 0
    words = ["celeriac", "submit", *([task] if task else []), "--file", str(file), "--key", key]
    told = f"To go on where this stopped: {shlex.join([*words, *_flags(options)])}"
    with interruptible(told), _opened(file) as source, bars() as bar:
        drawn = bar.add_task("submitting", total=_number(file), note="")
        try:
            for number, lines in enumerate(_batches(_lines(source, task, options)), 1):
                batch = _submit(client, lines, f"{key}-{number}")
                batches.append(batch["id"])
                jobs += len(lines)
                bar.update(drawn, completed=jobs)
                if as_json and not wait:
                    print_json(batch)
        except CeleriacError:
            notes().print(told)
            raise
    watched = ",".join(batches[-MOST_WATCHED:])
    if wait and batches:
        from celeriac.cli.crowd import by_filter

        return by_filter(client, {"batch": watched}, as_json)
    if not as_json:
        click.echo(f"{count(jobs, 'job')} in {len(batches)} {'batch' if len(batches) == 1 else 'batches'}.")
        suggest(f"celeriac watch --batch {watched}" if batches else "celeriac jobs")
    return 0


def _flags(options: Json) -> list[str]:
    """Return the options of `submit` that say the same once more: the same key wants the same jobs."""
    flags = []
    for name, value in options.items():
        if name == "unique":
            pairs = [(f"unique-{part}", held) for part, held in value.items()]
        else:
            flag = "tag" if name == "tags" else name.replace("_", "-")
            pairs = [(flag, each) for each in (value if isinstance(value, list) else [value])]
        flags += [word for flag, each in pairs for word in (f"--{flag}", str(each))]
    url = click.get_current_context().params.get("url")
    return [*flags, "--url", url] if url else flags


def _submit(client: "Client", lines: list[Line], key: str) -> Json:
    try:
        batch: Json = client.submit_batch([line.job for line in lines], key)["batch"]
        return batch
    except CeleriacError as error:
        _refuse(error, lines)


def _refuse(error: CeleriacError, lines: list[Line]) -> NoReturn:
    """Raise a server's error with the lines of the file in the place of positions in the batch."""
    faults = []
    for fault in error.faults:
        _, _, place, *rest = [*fault.path.split("/"), "", ""]
        known = fault.path.startswith("/jobs/") and place.isdigit() and int(place) < len(lines)
        below = "".join(f"/{part}" for part in rest if part)
        where = f"line {lines[int(place)].number}: {below or '/'}" if known else fault.path
        faults.append(Fault(where, fault.message))
    if not faults:
        raise error
    raise InvalidRequest("; ".join(f"{fault.path} {fault.message}" for fault in faults), faults) from None


def _lines(source: IO[str], task: str | None, options: Json) -> Iterator[Line]:
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            given = json.loads(text)
        except ValueError as error:
            raise InvalidRequest(f"Line {number} is not JSON: {error}.") from None
        if task is None and not (isinstance(given, dict) and "task" in given):
            raise InvalidRequest(f'Line {number} is not a job. Without TASK it must read {{"task": …, "args": …}}.')
        job = given if task is None else {"task": task, "args": given}
        yield Line(number, {**options, **job})


def _batches(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while batch := list(islice(lines, BATCH)):
        yield batch


def _number(file: Path) -> int | None:
    """Return how many lines will be submitted, or None for a pipe."""
    if str(file) == "-" or not file.is_file():
        return None
    with file.open("rb") as source:
        return sum(1 for line in source if line.strip())


def _opened(file: Path) -> IO[str]:
    return sys.stdin if str(file) == "-" else file.open(encoding="utf-8")
