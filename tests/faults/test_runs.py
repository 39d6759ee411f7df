"""Short runs on each of the four set-ups: everything breaks at once, and everything accepted ends, once.

The full ones are `make soak ARGS="-k minutes_of_everything --minutes 10 --seed 1 --setups redis --reports FILE"`; what
they found is in docs/guarantees.md.
"""

from pathlib import Path

import pytest
from nursery import Nursery

from faults.report import write
from faults.run import run
from faults.setups import SETUPS
from faults.trouble import troubles

MARKS = {
    "sqlite": [],
    "postgres": [pytest.mark.postgres],
    "rabbitmq": [pytest.mark.postgres, pytest.mark.rabbitmq],
    "redis": [pytest.mark.postgres, pytest.mark.redis],
}
EACH = [pytest.param(name, marks=MARKS[name]) for name in SETUPS]
# Between them these two have all there is; the others take their minute behind `make soak`.
SHORT = [
    pytest.param(name, marks=[*MARKS[name], *([] if name in ("sqlite", "rabbitmq") else [pytest.mark.soak])])
    for name in SETUPS
]
# One of each kind that is over soon; the others are left to the full run.
DENSE = (
    "every process is killed at once",
    "another program holds the write lock",
    "a reader holds an old snapshot while the log is folded in",
    "postgres restarts immediate",
    "postgres is read only",
    "backends are terminated five a second",
    "the way to Postgres is cut in the midst of an answer",
    "the way to Postgres refuses",
    "the broker is killed and comes back",
    "the broker forgets everything",
    "the way to the broker is half open",
    "the way to the broker is cut in the midst of an answer",
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHORT)
def test_nothing_accepted_is_lost_or_ends_twice_whatever_is_killed_cut_or_restarted(
    name: str, tmp_path: Path, nursery: Nursery
):
    report = run(name, tmp_path / "home", 8, 7, nursery, every=0.5, hold=0.3, only=DENSE)

    assert report.violations == [], report.text()
    assert report.ended == report.jobs_in >= report.acknowledged > 50, report.text()
    assert report.kills > 10, report.text()
    assert report.ran_twice == report.ran_twice_after_a_loss + report.ran_twice_after_an_outage


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EACH[:1])
def test_without_faults_nothing_runs_twice(name: str, tmp_path: Path, nursery: Nursery):
    report = run(name, tmp_path / "home", 3, 1, nursery, every=100, errors=0, only=("calm",), kills=0)

    assert (report.violations, report.kills, report.ran_twice) == ([], 0, 0), report.text()


def test_each_trouble_of_the_short_run_is_one_that_can_befall_a_set_up():
    assert set(DENSE) <= {name for setup in SETUPS for name in troubles(setup)}


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", EACH)
def test_minutes_of_everything(
    name: str, tmp_path: Path, nursery: Nursery, pytestconfig: pytest.Config, capfd: pytest.CaptureFixture[str]
):
    asked = pytestconfig.getoption
    if asked("--setups") and name not in asked("--setups").split(","):
        pytest.skip("not asked for")
    report = run(name, tmp_path / "home", asked("--minutes") * 60, asked("--seed"), nursery, every=0.8)
    with capfd.disabled():
        print(f"\n{report.text()}")
    if asked("--reports"):
        write(report, asked("--reports"))

    assert report.violations == []
