"""A run: a mixed load on one set-up, a seeded sequence of troubles beside a steady killing, then the oracle.

`run` is called by test_runs.py in a short form, and by `python -m faults.run` (`make soak`) for as long as one likes.
It answers a Report; whatever does not hold is in its `violations`.
"""

import contextlib
import json
import random
import threading
import time
from pathlib import Path

from instance import until
from nursery import Nursery
from oracle import violations
from sqlalchemy import text

from celeriac.errors import CeleriacError
from celeriac.ledger import read
from celeriac.states import is_final
from faults.cast import CONCURRENCY, Cast
from faults.evidence import Evidence
from faults.report import Report
from faults.setups import Setup, setup
from faults.trouble import TROUBLES, Scene, troubles

RECOVERY_SECONDS = 60
OUTAGES = {name for kind in ("sqlite", "postgres") for name in TROUBLES[kind]}


def run(
    name: str, home: Path, seconds: float, seed: int, nursery: Nursery, *, pace: float = 0.06, errors: float = 0.03,
    kills: float = 0.01, every: float = 1.0, hold: float = 1.0, only: tuple[str, ...] = (), **environment: str,
) -> Report:  # fmt: skip
    """Run for so many seconds: a kill every `every`, broken connections at the rate `errors`, `only` these troubles."""
    dice = random.Random(seed)
    report = Report(name, seed)
    with setup(name, home, nursery, **environment) as stage:
        cast = Cast(stage, dice, pace, errors, kills)
        try:
            cast.begin()
            until(lambda: _ended(stage) > 20, f"the first jobs; {cast.wrong}", 90)
            began = time.monotonic()
            _befall(Scene(stage, cast, dice, hold), report, began + seconds, every if kills else 0, only)
            report.seconds = round(time.monotonic() - began, 1)
            cast.end() if kills else cast.stop()
            _drain(stage, cast, report)
        except BaseException:
            cast.end()
            raise
        _judge(stage, cast, report)
    return report


def _befall(scene: Scene, report: Report, end: float, every: float, only: tuple[str, ...]) -> None:
    """Let one trouble follow another while processes are killed; measure how long each takes to get over."""
    stage, cast = scene.stage, scene.cast
    possible = {name: trouble for name, trouble in troubles(stage.name).items() if not only or name in only}
    order: list[str] = []
    killing = threading.Event()
    killing.set()
    over = threading.Event()

    def kill() -> None:
        dice = random.Random(report.seed)
        while not over.wait(dice.uniform(0.5 * every, 1.5 * every)):
            if killing.is_set():
                cast.kill_one()

    killer = threading.Thread(target=kill if every else over.wait, name="killer")
    killer.start()
    try:
        while time.monotonic() < end:
            if not order:
                order = scene.dice.sample(sorted(possible), len(possible))
            name, at = order.pop(), time.time()
            possible[name](scene)
            killing.clear()
            if name in OUTAGES:
                report.outages.append((at, time.time()))
            report.troubles[name] = report.troubles.get(name, 0) + 1
            took = _recovered(stage)
            if took > RECOVERY_SECONDS:
                report.violations.append(f"recovery: no job ended within {RECOVERY_SECONDS} s of: {name}")
            report.recovery_seconds[name] = max(report.recovery_seconds.get(name, 0), round(took, 2))
            killing.set()
            over.wait(scene.dice.uniform(0.5, 1.5))
    finally:
        over.set()
        killer.join()


def _recovered(stage: Setup) -> float:
    """Return how long it takes until a job ends."""
    began, before = time.monotonic(), _ended(stage)
    while (took := time.monotonic() - began) <= RECOVERY_SECONDS:
        if _ended(stage) > before >= 0:
            break
        before = _ended(stage) if before < 0 else before
        time.sleep(0.05)
    return took


def _ended(stage: Setup) -> int:
    """Return how many jobs have ended, or -1 while nobody can tell."""
    with contextlib.suppress(CeleriacError), stage.house.ledger.reading() as connection:
        return sum(jobs for (state, _, _), jobs in read.all_counts(connection).items() if is_final(state))
    return -1


def _drain(stage: Setup, cast: Cast, report: Report) -> None:
    """Let a cast without failpoints bring everything to its end, and then end itself."""
    began = time.monotonic()
    cast.armed = False
    cast.begin("web", "worker", "keeper")
    before, since = -1, began
    while not _drained(stage):
        if (now := _ended(stage)) != before:
            before, since = now, time.monotonic()
        if time.monotonic() - since > RECOVERY_SECONDS:
            report.violations.append(f"I2: jobs wait, and none has ended for {RECOVERY_SECONDS} s")
            break
        time.sleep(0.1)
    report.drain_seconds = round(time.monotonic() - began, 1)
    cast.stop()


def _drained(stage: Setup) -> bool:
    with stage.house.ledger.reading() as connection:
        return all(is_final(state) for (state, _, _), jobs in read.all_counts(connection).items() if jobs)


def _judge(stage: Setup, cast: Cast, report: Report) -> None:
    evidence = Evidence.of(stage.house.home)
    evidence.hurts, evidence.outages = cast.hurts, report.outages
    ledger = stage.house.ledger
    report.violations += [*cast.wrong, *violations(ledger, evidence.ids), *evidence.violations(ledger)]
    report.failpoints = cast.points()
    report.killed = {**cast.killed, "child at a failpoint": report.failpoints.get("child-after-run", 0)}
    report.kills = sum(count for name, count in report.killed.items() if "told" not in name)
    report.refused_to_start = cast.gave_up
    report.errors_injected = cast.errors_injected()
    report.acknowledged = len(evidence.ids)
    report.ran_twice, report.ran_twice_after_a_loss = evidence.twice, evidence.explained
    report.ran_twice_after_an_outage = evidence.cut_off
    with ledger.reading() as connection:
        report.jobs_in = connection.execute(text("SELECT COUNT(*) FROM jobs")).scalar_one()
    report.ended = _ended(stage)
    report.lost = len([told for told in report.violations if told.startswith("I1")])
    report.two_ends = sum(told.startswith("I3") for told in report.violations)
    if report.ran_twice > (sum(report.killed.values()) + len(cast.hurts)) * CONCURRENCY:
        report.violations.append(f"I5: {report.ran_twice} ran twice at {report.kills} kills")
    took = sorted(_reruns(stage, cast))
    if took:
        report.rerun_p50_seconds = round(took[len(took) // 2], 2)
        report.rerun_p99_seconds = round(took[int(len(took) * 0.99)], 2)


def _reruns(stage: Setup, cast: Cast) -> list[float]:
    """Return, for each job that a killed worker held, how long it took until it was claimed again."""
    with stage.house.ledger.reading() as connection:
        pids = dict(connection.execute(text("SELECT id, pid FROM workers")).all())
        rows = connection.execute(text("SELECT job, at, kind, data FROM events ORDER BY job, number")).all()
    last: dict[int, str] = {}
    killed = {hurt.pid: hurt.at for hurt in cast.hurts}
    took = []
    for row in rows:
        if row.kind == "claimed":
            worker = json.loads(row.data)["worker"]
            before = last.get(row.job)
            if before is not None:
                at = killed.get(pids.get(before))
                if at is not None and row.at / 1e6 > at:
                    took.append(row.at / 1e6 - at)
            last[row.job] = worker
        elif row.kind not in ("rescued", "given-back", "started", "progress"):
            last.pop(row.job, None)
    return took
