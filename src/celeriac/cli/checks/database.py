"""The ledger: whether it is there, of this version, writable; and who works on it at the moment.

Looks of `celeriac check`, for any database; server.py has those of Postgres alone.
"""

import os
import shlex
from collections.abc import Iterator

from celeriac.cli.database import open_existing, sqlite_file
from celeriac.cli.output import count
from celeriac.ledger import Ledger, migrations, nodes, read
from celeriac.settings import Settings

Found = Iterator[tuple[str, str]]
MUCH_LOG = 1 << 30
LEADER = "keeper"


def existing(settings: Settings) -> Ledger | None:
    """Return the ledger, or None when there is no file yet. Raises what is wrong with it."""
    file = sqlite_file(settings)
    return None if file is not None and not file.exists() else open_existing(settings)


def database(settings: Settings) -> Found:
    """The ledger exists and is of this version."""
    file = sqlite_file(settings)
    ledger, name = existing(settings), file or "the server"
    if ledger is None:
        yield "warning", f"{file} does not exist yet; `celeriac dev` and `celeriac migrate` make it"
    elif migrations.is_finished(ledger):
        yield "fine", f"{name} is at this version ({migrations.head()})"
    else:
        what = f"{name} still serves processes of the version before as well"
        yield "warning", f"{what}. When none of them is left, finish it: celeriac migrate --finish"


def writing(settings: Settings) -> Found:
    """An SQLite file and its folder can be written, and its log is being folded in."""
    file = sqlite_file(settings)
    if file is None or not file.exists():
        return
    if not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK | os.X_OK):
        yield "error", f"{file} or its folder is not writable for this user. Give both to the user that runs Celeriac"
        return
    log = file.with_name(f"{file.name}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > MUCH_LOG:
        yield "warning", f"{log} has {size / (1 << 30):.1f} GiB; a keeper folds it in. Run `celeriac keeper`"
    else:
        yield "fine", f"{file.stat().st_size / (1 << 20):.0f} MiB, writable"


def keeper(settings: Settings) -> Found:
    """Without a keeper nothing falls due and nobody is rescued."""
    ledger = existing(settings)
    if ledger is None:
        return
    lead = nodes.leader(ledger, LEADER)
    if lead is None or lead.released:
        yield "warning", "no keeper leads: delayed jobs and retries wait, lost workers are not noticed. Start one"
    else:
        yield "fine", f"{lead.holder} leads"


def queues(settings: Settings) -> Found:
    """Each queue with jobs in it has a worker that listens."""
    ledger = existing(settings)
    if ledger is None:
        return
    heard = {queue for worker in read.all_workers(ledger) if worker.online for queue in worker.queues}
    well = True
    for queue in read.all_queues(ledger):
        waiting = queue.counts.get("queued", 0)
        if waiting and queue.name not in heard:
            well = False
            what = f"{count(waiting, 'job')} waiting in {queue.name!r}, to which no worker listens"
            yield "warning", f"{what}. Start one: celeriac worker APP -Q {shlex.quote(queue.name)}"
        elif queue.paused_at is not None:
            well = False
            resume = f"celeriac queues resume {shlex.quote(queue.name)}"
            yield "warning", f"{queue.name!r} is paused. Type `{resume}` to go on"
    if well:
        have = "has" if len(heard) == 1 else "have"
        yield "fine", f"{count(len(heard), 'queue')} {have} workers, and no job waits in another"


LOOKS = {"database": database, "writing": writing, "keeper": keeper, "queues": queues}
