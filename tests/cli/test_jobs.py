"""`submit`, `watch` and `jobs` against a real server, from its folder."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac.cli.jobs import narrowed
from celeriac.cli.submit import asked
from cli.terminal import CELERIAC, Terminal, environment, json_of, run, until

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on which the demo runs."""
    folder = tmp_path_factory.mktemp("served")
    running = Terminal(folder, "demo", "--port", "0")
    try:
        running.shows("is ready")
        yield folder
    finally:
        running.close()


@pytest.fixture
def celeriac(served: Path) -> Command:
    return lambda *words, **variables: run(served, *words, **variables)


def submitted(celeriac: Command, *words: str) -> str:
    return celeriac("submit", *words, "--no-wait").stdout.strip()


def test_the_result_is_alone_on_stdout(celeriac):
    result = celeriac("submit", "echo", "value=banana")

    assert (result.returncode, result.stdout) == (0, "banana\n")
    assert re.search(r"^Next: celeriac jobs show \S+$", result.stderr, re.MULTILINE)


def test_json_is_the_whole_job_and_no_hint(celeriac):
    result = celeriac("submit", "echo", 'value={"a": [1, null]}', "--tag", "one", "--tag", "two", "--json")
    [job] = json_of(result.stdout)

    assert (job["state"], job["result"], job["tags"]) == ("succeeded", {"a": [1, None]}, ["one", "two"])
    assert result.stderr == ""


def test_a_failed_job_is_a_failed_command_with_its_reason(celeriac):
    result = celeriac("submit", "divide", "--args", "[1, 0]")

    assert (result.returncode, result.stdout) == (1, "")
    assert "failed (ZeroDivisionError: division by zero)." in result.stderr


def test_wrong_arguments_are_all_named_at_once(celeriac):
    result = celeriac("submit", "divide", "x=one", "z=1")

    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "celeriac: Not valid:"
    assert {line.split()[0] for line in result.stderr.splitlines()[1:]} == {"/args/x", "/args/y", "/args/z"}


def test_what_is_typed_for_a_text_parameter_is_text(celeriac):
    result = celeriac("submit", "lcs", "a=1234", "b=023", "--json")

    assert json.loads(result.stdout)["result"]["text"] == "23"


def test_an_unknown_task_is_told_the_known_ones(celeriac):
    result = celeriac("submit", "lsc")

    assert result.returncode == 1
    assert "There is no task 'lsc'. Known tasks: crunch, divide, echo, lcs, sleep." in result.stderr


def test_the_same_key_makes_one_job(celeriac):
    assert submitted(celeriac, "echo", "value=1", "--key", "k1") == submitted(
        celeriac, "echo", "value=1", "--key", "k1"
    )


def test_a_watched_job_shows_its_history_and_its_result(celeriac):
    id = submitted(celeriac, "sleep", "seconds=0.5")
    result = celeriac("watch", id)

    assert (result.returncode, result.stdout) == (0, "0.5\n")
    kinds = [line.split()[2] for line in result.stderr.splitlines() if re.match(r"\d{4}-", line)]
    assert (kinds[0], kinds[-1]) == ("submitted", "succeeded")


def test_ctrl_c_ends_the_waiting_and_not_the_job(served: Path, celeriac):
    waiting = Terminal(served, "submit", "sleep", "seconds=2", "--tag", "left-alone")
    try:
        jobs = until(lambda: json_of(celeriac("jobs", "--tag", "left-alone", "--json").stdout), "it is submitted")
        waiting.ctrl_c()
        assert waiting.end() in (130, -2)
        assert "Traceback" not in waiting.all
    finally:
        waiting.close()

    assert celeriac("watch", str(jobs[0]["id"])).stdout == "2\n"


def test_a_waiting_job_is_cancelled_and_retried(celeriac):
    id = submitted(celeriac, "echo", "value=late", "--delay", "1h")

    assert celeriac("jobs", "cancel", id).stdout == f"{id} is cancelled.\n"
    assert celeriac("watch", id).returncode == 1
    assert celeriac("jobs", "retry", id).returncode == 0
    assert celeriac("watch", id).stdout == "late\n"


def test_a_move_that_is_refused_does_not_stop_the_others(celeriac):
    one = submitted(celeriac, "echo", "value=1", "--delay", "1h")
    result = celeriac("jobs", "cancel", "no-such-job", one)

    assert result.returncode == 1
    assert result.stdout == f"{one} is cancelled.\n"
    assert "There is no job 'no-such-job'." in result.stderr


def test_the_list_is_narrowed_and_limited(celeriac):
    for value in range(3):
        celeriac("submit", "echo", f"value={value}", "--tag", "narrow")
    narrow = ("jobs", "--tag", "narrow", "--task", "echo,lcs", "--state", "succeeded", "--since", "1h", "--json")

    assert [job["args"] for job in json_of(celeriac(*narrow).stdout)] == [{"value": 2}, {"value": 1}, {"value": 0}]
    assert len(json_of(celeriac(*narrow, "--limit", "2").stdout)) == 2
    assert json_of(celeriac(*narrow[:-1], "--until", "1h", "--json").stdout) == []


def test_a_table_names_each_job_in_full(celeriac):
    id = submitted(celeriac, "echo", "value=1")

    assert f"{id}  echo" in celeriac("jobs").stdout


def test_a_job_is_shown_with_its_error(celeriac):
    id = submitted(celeriac, "divide", "x=1", "y=0")
    celeriac("watch", id)
    shown = celeriac("jobs", "show", id)

    assert shown.returncode == 0
    assert "ZeroDivisionError" in shown.stdout
    assert json_of(celeriac("jobs", "show", id, "--json").stdout)[0]["id"] == id


def test_a_closed_pipe_is_no_error(served: Path):
    script = f"{' '.join(CELERIAC)} jobs --json | head -n 0"
    result = subprocess.run(
        script, shell=True, cwd=served, env=environment(), capture_output=True, text=True, timeout=60
    )

    assert result.stderr == ""


def test_a_wrong_token_is_a_sentence(celeriac):
    result = celeriac("jobs", "--token", "cel_wrong")

    assert result.returncode == 1
    assert result.stderr.startswith("celeriac: ")
    assert result.stderr.count("\n") == 1


def test_no_server_is_a_sentence_and_an_exit_code_of_its_own(tmp_path: Path):
    for words in (("jobs",), ("submit", "echo", "value=1"), ("jobs", "--url", "http://127.0.0.1:9", "--token", "x")):
        result = run(tmp_path, *words)
        assert result.returncode == 3
        assert "Start one with `celeriac dev`" in result.stderr


@pytest.mark.parametrize("option", [("--url", "banana"), ("--url", "http://[x"), ("--token", "é")])
def test_what_is_no_address_or_token_is_wrong_usage(tmp_path: Path, option: tuple[str, str]):
    result = run(tmp_path, "jobs", *option)

    assert result.returncode == 2
    assert f"Invalid value for '{option[0]}'" in result.stderr


def test_filters_become_what_the_api_takes():
    given = {"state": ("queued", "running"), "task": (), "q": "ab", "since": None}

    assert narrowed(given) == {"state": "queued,running", "q": "ab"}


def test_only_given_options_are_submitted():
    nothing = dict.fromkeys(("queue", "priority", "delay", "run_at", "expires_at", "max_attempts", "key")) | {
        "tags": ()
    }

    assert asked(nothing) == {}
    assert asked({**nothing, "delay": "2m", "priority": 0, "tags": ("a",), "key": "k"}) == {
        "delay": 120.0, "priority": 0, "tags": ["a"], "idempotency_key": "k",
    }  # fmt: skip
