"""The loop behind `celeriac dev` and `celeriac demo`: one thread decides, all others only post events.

It takes the home, has it prepared, starts every process, says when the server is there, starts again
what dies, reloads when the app's files change, and ends all of it on Ctrl-C or SIGTERM: once to
let running jobs finish, twice to end at once.
"""

import os
import queue
import shlex
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from celeriac import clock
from celeriac.cli.supervisor.changes import Changed, Changes
from celeriac.cli.supervisor.home import taken, url_of
from celeriac.cli.supervisor.plan import Plan
from celeriac.cli.supervisor.preparation import Preparation, Prepared
from celeriac.cli.supervisor.process import Ended, Process
from celeriac.cli.supervisor.readiness import Ready, Watch
from celeriac.cli.supervisor.screen import Screen
from celeriac.cli.trouble import CANNOT_START
from celeriac.errors import CannotStart
from celeriac.settings import LOOPBACK

PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Ctrl-C, SIGTERM, or the terminal is gone: the signal says which."""

    number: int


Event: TypeAlias = Stop | Prepared | Ready | Ended | Changed


def supervise(plan: Plan) -> None:
    """Run a plan until Ctrl-C or SIGTERM.

    Raises:
        CannotStart: with the reason; nothing is left running.
    """
    if plan.settings.host not in LOOPBACK:
        from celeriac.web.hosts import allowed_hosts  # loads the web framework, so only where it may refuse

        allowed_hosts(plan.settings)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: events.put(Stop(number)))
    with taken(plan.settings, plan.command) as settings:
        Supervisor(replace(plan, settings=settings), events).run()


class Supervisor:
    """Carries out a plan on a home that is taken."""

    def __init__(self, plan: Plan, events: "queue.SimpleQueue[Event]") -> None:
        self._plan = plan
        self._events = events
        self._environment = plan.environment()
        self._lifeline, self._our_end = os.pipe()  # see lifeline.py; ours closes when this process ends
        commands = plan.commands()
        self._screen = Screen(plan.settings.home / "logs", [command.name for command in commands])
        self._processes = [Process(command, self._screen.line, events.put) for command in commands]
        self._preparation = Preparation(events.put)
        self._watch = Watch(url_of(plan.settings), self._token, events.put)
        self._changes: Changes | None = None
        self._ticket = self._example = ""
        self._trouble = ""
        self._was_ready = self._reloading = self._changed_again = self._interrupted = False
        self._stopping_at: float | None = None
        self._told_to_wait = False

    def run(self) -> None:
        """Run until everything has ended."""
        self._screen.say(f"Starting {self._plan.app} with its data in {self._plan.settings.home.absolute()}")
        self._preparation.begin(self._environment, self._lifeline)
        while not self._over:
            with suppress(queue.Empty):
                self._take(self._events.get(timeout=self._until_next()))
            self._keep_time()
        self._close()
        if self._trouble:
            raise CannotStart(self._trouble)

    @property
    def _over(self) -> bool:
        alive = self._preparation.running or any(process.pid for process in self._processes)
        return self._stopping_at is not None and not alive

    def _take(self, event: Event) -> None:
        match event:
            case Stop():
                self._interrupted |= event.number == signal.SIGINT
                self._stop()
            case Prepared():
                self._prepared(event)
            case Ready():
                self._ready()
            case Ended():
                self._ended(event)
            case Changed():
                self._changed(event)

    # The way up

    def _prepared(self, prepared: Prepared) -> None:
        self._preparation.done()
        if self._stopping_at is not None:
            return
        if self._was_started:
            self._reload(prepared.trouble)
        elif prepared.trouble:
            self._give_up(prepared.trouble)
        else:
            self._start(prepared)

    @property
    def _was_started(self) -> bool:
        return bool(self._ticket)

    def _start(self, prepared: Prepared) -> None:
        self._ticket, self._example = prepared.ticket, prepared.example
        if prepared.migrated:
            copy = f"; a copy of what it was is {prepared.copy}" if prepared.copy else ""
            self._screen.say(f"The database was brought to this version{copy}")
        for process in self._processes:
            process.start(self._environment, self._lifeline)
        if self._plan.reload:
            self._changes = Changes(Path.cwd(), self._plan.settings.home, self._events.put)
        self._watch.begin(self._workers)

    def _workers(self) -> set[int]:
        nodes = {node.name for node in self._plan.nodes}
        return {process.pid or 0 for process in self._processes if process.name in nodes}

    def _token(self) -> str:
        with suppress(OSError):
            return self._plan.settings.token_path.read_text("utf-8").strip()
        return ""

    def _ready(self) -> None:
        if self._stopping_at is not None:
            return
        if self._was_ready:
            self._screen.say(f"Ready again after {clock.monotonic() - self._watch.began_at:.1f} s")
            return
        self._was_ready = True
        url = url_of(self._plan.settings)
        self._screen.block(f"celeriac {self._plan.command} is ready.", [
            ("Open", f"{url}/login?ticket={self._ticket}"),
            ("", "(this link logs you in once, within ten minutes; `celeriac token login` makes another)"),
            ("Data", str(self._plan.settings.home.absolute())),
            ("Try", f"{self._variables()}{self._plan.example or self._example}"),
            ("Stop", "Ctrl-C"),
        ])  # fmt: skip

    def _variables(self) -> str:
        """Return what a second terminal in the same folder has to set before it finds this server."""
        home = self._plan.settings.home
        return "" if home == Path(".celeriac") else f"CELERIAC_HOME={shlex.quote(str(home))} "

    # Deaths

    def _ended(self, event: Ended) -> None:
        process = next(process for process in self._processes if process.name == event.name)
        asked = process.stopping
        delay = process.ended()
        process.drain()
        if event.code == CANNOT_START and not self._was_ready and self._stopping_at is None:
            self._give_up(f"{process.name} could not start; its reason is above.")
        elif delay is not None and not asked:
            self._screen.say(f"{process.name} {_how(event.code)}; starting it again in {delay:.0f} s")

    # Reloading

    def _changed(self, changed: Changed) -> None:
        if self._stopping_at is not None:
            return
        if changed.trouble:
            self._screen.say(f"Files are not watched any more: {changed.trouble}")
        elif self._preparation.running:
            self._changed_again = True
        else:
            self._screen.say(f"{changed}: reloading")
            self._watch.drop()
            self._preparation.begin(self._environment, self._lifeline, app_only=True)

    def _reload(self, trouble: str) -> None:
        if self._changed_again:
            self._changed_again = False
            self._preparation.begin(self._environment, self._lifeline, app_only=True)
            return
        if trouble:
            self._screen.say(f"{trouble} Waiting for the next change.")
        for process in self._processes:
            if process.command.follows:
                process.stop(again=not trouble)
        self._reloading = not trouble

    # The way down

    def _stop(self) -> None:
        first = self._stopping_at is None
        self._begin_to_stop("Stopping" if first else "Stopping at once")
        for process in self._processes:
            process.stop() if first else process.kill()

    def _give_up(self, trouble: str) -> None:
        self._trouble = trouble
        self._begin_to_stop("")
        for process in self._processes:
            process.stop()

    def _begin_to_stop(self, told: str) -> None:
        self._stopping_at = self._stopping_at or clock.monotonic()
        self._watch.drop()
        self._preparation.kill()
        if told:
            self._screen.say(told)

    def _close(self) -> None:
        if self._changes:
            self._changes.close()
        for process in self._processes:
            process.drain()
        if not self._trouble:
            self._screen.say("Stopped")
        self._screen.close()
        os.close(self._our_end)
        os.close(self._lifeline)

    # Time

    def _until_next(self) -> float | None:
        moments = [moment for process in self._processes for moment in (process.start_at, process.kill_at) if moment]
        if self._stopping_at is not None and not self._told_to_wait:
            moments.append(self._stopping_at + PATIENCE_SECONDS)
        return max(0.0, min(moments) - clock.monotonic()) if moments else None

    def _keep_time(self) -> None:
        now = clock.monotonic()
        for process in self._processes:
            if process.start_at is not None and now >= process.start_at:
                process.start(self._environment, self._lifeline)
            if process.kill_at is not None and now >= process.kill_at:
                self._screen.say(f"{process.name} did not end within {process.command.grace:.0f} s; killing it")
                process.kill()
        if self._reloading and all(process.pid and not process.stopping for process in self._processes):
            self._reloading = False
            self._watch.begin(self._workers)
        if self._stopping_at is not None and not self._told_to_wait and now >= self._stopping_at + PATIENCE_SECONDS:
            self._told_to_wait = True
            names = [process.name for process in self._processes if process.pid]
            self._screen.say(waiting_for(names, self._plan, self._interrupted))


def waiting_for(names: list[str], plan: Plan, interrupted: bool) -> str:
    """Return whom a stop waits for, how long, and what ends the waiting."""
    works = any(node.name in names for node in plan.nodes)
    limit = f": running jobs get {plan.settings.shutdown_seconds:g} s at most" if works else ""
    return f"Waiting for {', '.join(names)}{limit}. Ctrl-C {'again ' if interrupted else ''}stops at once"


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
