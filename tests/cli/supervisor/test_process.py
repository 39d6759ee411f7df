"""One supervised process: real ones, told apart by what they print."""

import os
import queue
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from celeriac import clock
from celeriac.cli.supervisor.plan import Command
from celeriac.cli.supervisor.process import LONGEST_BACKOFF, Ended, Process


@dataclass
class Stage:
    """Where a process is tried: what it printed, how it ended, its lifeline."""

    lines: list[str] = field(default_factory=list)
    ends: "queue.SimpleQueue[Ended]" = field(default_factory=queue.SimpleQueue)
    pipe: tuple[int, int] = field(default_factory=os.pipe)

    def start(self, code: str) -> Process:
        command = Command("it", (sys.executable, "-c", code), grace=30)
        process = Process(command, lambda name, line: self.lines.append(line), self.ends.put)
        process.start(dict(os.environ), self.pipe[0])
        return process


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    for end in stage.pipe:
        os.close(end)


WAITS = "import signal; print('up', flush=True); signal.pause()"


def up(stage: Stage, process: Process) -> None:
    from cli.terminal import until

    until(lambda: "up" in stage.lines, f"{process.name} is up")


def test_its_output_and_its_end_are_told(stage):
    process = stage.start("import sys; print('one'); print('two', file=sys.stderr, flush=True); sys.exit(5)")
    ended = stage.ends.get(timeout=60)
    process.drain()

    assert ended == Ended("it", ended.pid, 5)
    assert sorted(stage.lines) == ["one", "two"]


def test_a_stop_lets_it_end_and_it_is_not_started_again(stage):
    process = stage.start(WAITS)
    up(stage, process)
    process.stop()

    assert stage.ends.get(timeout=60).code == -15
    assert process.ended() is None
    assert process.start_at is None


def test_a_restart_comes_at_once_and_a_death_waits_longer_each_time(stage):
    process = stage.start(WAITS)
    process.stop(again=True)
    stage.ends.get(timeout=60)
    assert process.ended() == 0

    delays = []
    for _ in range(7):
        process.start(dict(os.environ), stage.pipe[0])
        process.wanted = True
        os.kill(process.pid, 9)
        stage.ends.get(timeout=60)
        delays.append(process.ended())
    assert delays == [1, 2, 4, 8, 16, 30, 30]


def test_after_a_long_life_it_starts_again_soon(stage, monkeypatch):
    process = stage.start(WAITS)
    process.kill()
    stage.ends.get(timeout=60)
    process.stopping, process._backoff = False, 16.0
    later = clock.monotonic() + LONGEST_BACKOFF + 1
    monkeypatch.setattr(clock, "monotonic", lambda: later)

    assert process.ended() == 1


def test_what_it_forked_does_not_outlive_it(stage):
    import psutil

    from cli.terminal import alive, until

    process = stage.start(
        "import os, signal\n"
        "if os.fork(): signal.pause()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid()); print('up', flush=True); signal.pause()"
    )
    up(stage, process)
    child = psutil.Process(int(stage.lines[0]))
    os.kill(process.pid, 9)
    stage.ends.get(timeout=60)

    until(lambda: not alive(child), "the end of the fork")


def test_a_child_stops_when_its_lifeline_is_cut(stage):
    process = stage.start(f"from celeriac.cli.supervisor.lifeline import hold_on; hold_on(); {WAITS}")
    up(stage, process)
    os.close(stage.pipe[1])
    ended = stage.ends.get(timeout=60)
    stage.pipe = (stage.pipe[0], os.dup(stage.pipe[0]))

    assert ended.code == -15
