"""A job that kills its workers ends with everything that is known of each death."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from instance import Instance, instance, until
from nursery import Nursery

from celeriac import current
from celeriac.access import SYSTEM
from celeriac.app.redaction import Redaction
from celeriac.jobs import Job
from celeriac.ledger import read
from celeriac.settings import SECRETS
from celeriac.states import State
from celeriac.worker import evidence
from celeriac.worker.evidence import Death, Inquest


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Instance]:
    with instance(tmp_path_factory.mktemp("house"), nursery=nursery, CELERIAC_MAX_DEATHS="2") as made:
        made.keeper()
        made.worker(concurrency=2)
        yield made


def data_of(house: Instance, job: Job, kind: str) -> list[dict]:
    events = read.history(house.ledger, SYSTEM, job.id, 0, 1000)
    return [json.loads(event.data) for event in events if event.kind == kind]


def poisoned(house: Instance, how: str) -> Job:
    [job] = house.ended(house.submit("poison", how=how))
    assert (job.state, job.failure.code) == (State.FAILED, "quarantined")
    return job


def test_a_job_that_crashes_its_process_is_quarantined_with_the_signal_and_the_line_of_code(house: Instance):
    job = poisoned(house, "segfault")

    assert "It lost 2 workers" in job.failure.message
    assert "signal 11 (SIGSEGV)" in job.failure.message
    assert job.failure.traceback.count("Segmentation fault") == 2
    assert "jobs_for_tests.py" in job.failure.traceback
    assert "Death 2: attempt 2, worker one@" in job.failure.traceback
    assert "Segmentation fault" in house.log("one")


def test_every_death_is_told_with_its_worker_its_process_its_memory_and_the_last_lines(house: Instance):
    job = poisoned(house, "kill")

    [rescued], [quarantined] = data_of(house, job, "rescued"), data_of(house, job, "quarantined")
    for number, death in enumerate([rescued, *quarantined["deaths"][1:]], 1):
        assert death["attempt"] == number
        assert death["worker"].startswith("one@")
        assert death["pid"] > 1
        assert death["ended"].startswith("signal 9 (SIGKILL); it had taken ")
        assert 10 * 2**20 < death["memory_bytes"] < 2**30
        assert death["lines"] == [
            "WARNING by the task logger, token=[redacted], on", "WARNING by a logger", "by current.log",
        ]  # fmt: skip
    assert quarantined["deaths"][0] == {**rescued, **quarantined["deaths"][0]}
    assert "by a logger" in job.failure.traceback
    assert "hush-hush" not in job.failure.traceback


def test_an_exit_is_told_with_its_code(house: Instance):
    assert "exit code 7" in poisoned(house, "exit").failure.message


def test_the_task_logger_speaks_in_the_jobs_own_log(house: Instance):
    job = poisoned(house, "exit")

    texts = [data["text"] for data in data_of(house, job, "log")]
    assert texts[:2] == ["WARNING by the task logger, token=[redacted], on", "by current.log"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_when_the_whole_node_dies_its_name_and_the_last_lines_are_still_known(tmp_path, nursery: Nursery, pool: str):
    with instance(tmp_path / "home", nursery=nursery, CELERIAC_MAX_DEATHS="1") as house:
        house.keeper()
        house.worker("one", pool=pool, concurrency=1)
        [id] = house.submit("poison", how="wait")
        until(lambda: house.kinds(id).count("log") == 2, "its lines to be in the ledger")
        pid = house.processes["one"].pid
        os.killpg(pid, signal.SIGKILL)
        [job] = house.ended([id])

        [quarantined] = data_of(house, job, "quarantined")
        assert (job.failure.code, quarantined["pid"]) == ("quarantined", pid)
        assert "The worker one@" in job.failure.message
        assert quarantined["lines"] == ["WARNING by the task logger, token=[redacted], on", "by current.log"]
        assert "by current.log" in job.failure.traceback


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    path = tmp_path / "memory.events"
    path.write_text("low 0\noom 4\noom_kill 4\n")
    return path


def test_a_kill_while_the_kernel_counts_one_more_for_memory_was_probably_that(tmp_path: Path, counter: Path):
    inquest = Inquest((tmp_path / "none", counter))
    counter.write_text("low 0\noom 5\noom_kill 5\n")

    assert "signal 9 (SIGKILL), probably out of memory" in str(inquest.death(tmp_path, 1234, -signal.SIGKILL))
    assert "memory" not in str(inquest.death(tmp_path, 1235, -signal.SIGKILL))


def test_a_crash_while_the_kernel_kills_somebody_else_is_a_crash(tmp_path: Path, counter: Path):
    inquest = Inquest((counter,))
    counter.write_text("oom_kill 5\n")

    assert str(inquest.death(tmp_path, 1234, -signal.SIGSEGV)) == "signal 11 (SIGSEGV)"


def test_a_machine_that_counts_nothing_is_no_hindrance(tmp_path: Path):
    assert Inquest(()).death(tmp_path, 1234, 3) == Death(1234, 3)


def test_what_children_left_is_read_once_and_removed(tmp_path: Path):
    (tmp_path / "7.stack").write_text("Fatal\0")
    (tmp_path / "7.lines").write_text("\n".join(f"line {number}" for number in range(100)))

    death = Inquest(()).death(tmp_path, 7, -11)

    assert (death.stack, len(death.lines), death.lines[-1]) == ("Fatal\ufffd", evidence.LINES, "line 99")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("token=abc next", "token=[redacted] next"),
        ('{"api_key": "a b c", "n": 1}', '{"api_key": [redacted], "n": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
        ("password: 'x y', user=ann", "password: [redacted], user=ann"),
        ("a token without a value", "a token without a value"),
        ("nothing=secret-looking", "nothing=secret-looking"),
    ],
)
def test_values_behind_secret_names_are_hidden_in_lines(line: str, shown: str):
    assert Redaction(SECRETS).line(line) == shown


def test_a_record_that_cannot_be_formatted_hurts_nobody(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(current, "log", lambda text: pytest.fail("it was told"))
    record = logging.LogRecord("x", logging.INFO, "", 1, "%d", ("no number",), None)

    evidence.Lines(current.log).emit(record)

    assert "Logging error" in capsys.readouterr().err
