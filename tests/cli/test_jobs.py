"""`submit`, `watch` and `jobs` against a real server, from its folder."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from celeriac.cli.group import celeriac as group
from celeriac.cli.jobs import _now
from celeriac.cli.options import narrowed
from celeriac.cli.submit import asked
from celeriac.cli.supervisor.home import running
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
def celeriac(served: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process, in the folder that is served."""
    for name in [name for name in os.environ if name.startswith("CELERIAC_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(served)

    def command(*words: str, input: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        result = CliRunner(env=variables).invoke(group, words, input=input, prog_name="celeriac")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return command


def test_a_cancel_says_when_it_needs_the_jobs_help():
    assert _now({"state": "cancelled", "cooperative": False}) == "cancelled"
    assert _now({"state": "running", "cooperative": False}) == "running, and told to stop"
    assert "stops where it next reports progress" in _now({"state": "running", "cooperative": True})


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


def chained(served: Path, links: int) -> str:
    """The id of a job that waits, with so many behind it in its chain."""
    program = (
        "from celery import chain\n"
        "from celeriac.demo.tasks import echo\n"
        f"last = chain(echo.si(0).set(countdown=3600), *[echo.si(1)] * {links}).apply_async()\n"
        "while last.parent: last = last.parent\n"
        "print(last.id)\n"
    )
    command = (sys.executable, "-P", "-c", program)
    done = subprocess.run(command, cwd=served, env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("number", "rest"), [(1, "so is 1 job"), (3, "so are 3 jobs")])
def test_a_cancel_tells_what_becomes_of_the_rest_of_a_chain(celeriac, served: Path, number: int, rest: str):
    id = chained(served, number)
    assert celeriac("jobs", "cancel", id).stdout == f"{id} is cancelled, and {rest} behind it.\n"

    [job] = json_of(celeriac("jobs", "cancel", chained(served, number), "--json").stdout)
    assert (job["also_count"], len(job["also"])) == (number, number)
    assert json_of(celeriac("jobs", "show", str(job["also"][-1]), "--json").stdout)[0]["state"] == "cancelled"


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


def test_a_wrong_token_is_a_sentence_and_says_which_server_does_not_know_it(celeriac, served):
    result = celeriac("jobs", "--token", "cel_wrong")

    assert result.returncode == 1
    sentence, more = result.stderr.splitlines()
    assert sentence.startswith("celeriac: ")
    assert json.loads((served / ".celeriac" / "lock").read_text())["url"] in more


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


@pytest.mark.parametrize(("name", "value"), [("URL", "banana"), ("TOKEN", "é")])
def test_a_variable_is_checked_as_its_option_is(tmp_path: Path, name: str, value: str):
    result = run(tmp_path, "jobs", **{"CELERIAC_URL": "http://127.0.0.1:9", f"CELERIAC_{name}": value})

    assert result.returncode == 2
    assert f"Invalid value for '--{name.lower()}'" in result.stderr


def test_filters_become_what_the_api_takes():
    given = {"state": ("queued", "running"), "task": (), "q": "ab", "since": None}

    assert narrowed(given) == {"state": "queued,running", "q": "ab"}


def test_only_given_options_are_submitted():
    names = ("queue", "priority", "delay", "run_at", "expires_at", "max_attempts", "key", "time_limit", "unique_key")
    nothing = dict.fromkeys((*names, "unique_window")) | {"tags": ()}

    assert asked(nothing) == {}
    assert asked({**nothing, "delay": "2m", "priority": 0, "tags": ("a",), "key": "k"}) == {
        "delay": 120.0, "priority": 0, "tags": ["a"], "idempotency_key": "k",
    }  # fmt: skip
    assert asked({**nothing, "time_limit": "1m", "unique_key": "u", "unique_window": "1h"}) == {
        "time_limit": 60.0, "unique": {"key": "u", "window": 3600.0},
    }  # fmt: skip


# Many jobs at once


def waiting(celeriac: Command, tag: str, number: int = 3) -> list[str]:
    return [submitted(celeriac, "echo", f"value={n}", "--tag", tag, "--delay", "1h") for n in range(number)]


def test_all_that_match_a_filter_are_cancelled_and_retried(celeriac):
    ids = waiting(celeriac, "several")
    done = celeriac("jobs", "cancel", "--tag", "several", "--yes")

    assert (done.returncode, done.stdout) == (0, "3 jobs cancelled, or told to stop.\n")
    [operation] = json_of(celeriac("jobs", "retry", "--tag", "several", "--yes", "--json").stdout)
    assert [operation[name] for name in ("state", "matched", "moved", "refused")] == ["done", 3, 3, 0]
    assert celeriac("watch", *ids).returncode == 0


def test_without_a_terminal_a_filter_needs_a_yes(celeriac):
    waiting(celeriac, "unsure", 1)
    asked_ = celeriac("jobs", "cancel", "--tag", "unsure")

    assert asked_.returncode == 2
    assert "--yes" in asked_.stderr
    assert json_of(celeriac("jobs", "--tag", "unsure", "--json").stdout)[0]["state"] == "scheduled"


@pytest.mark.parametrize(("answer", "state"), [("n", "scheduled"), ("y", "cancelled")])
def test_at_a_terminal_it_asks_first(served: Path, celeriac, answer: str, state: str):
    waiting(celeriac, f"asked-{answer}", 2)
    ours, theirs = pty.openpty()
    command = (*CELERIAC, "jobs", "cancel", "--tag", f"asked-{answer}")
    asking = subprocess.Popen(command, cwd=served, env=environment(), stdin=theirs, stdout=-1, stderr=-1, text=True)
    os.write(ours, f"{answer}\n".encode())
    _, told = asking.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert "Cancel 2 jobs? [y/N]:" in told
    assert {job["state"] for job in json_of(celeriac("jobs", "--tag", f"asked-{answer}", "--json").stdout)} == {state}


@pytest.mark.parametrize(
    ("verb", "state"), [("retry", "succeeded"), ("retry", "failed,queued"), ("cancel", "succeeded")]
)
def test_a_state_in_which_no_job_can_be_moved_is_refused(celeriac, verb: str, state: str):
    result = celeriac("jobs", verb, "--state", state)

    assert result.returncode == 2
    assert f"cannot be {'retried' if verb == 'retry' else 'cancelled'}" in result.stderr


def test_a_filter_that_matches_nothing_does_nothing(celeriac):
    result = celeriac("jobs", "cancel", "--tag", "nobody")

    assert (result.returncode, result.stdout) == (0, "")
    assert "No job matches" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("jobs", "cancel"), "Say which jobs"),
        (("jobs", "cancel", "x", "--tag", "t"), "not both"),
        (("jobs", "--tag", "t", "cancel", "x"), "behind `cancel`"),
        (("watch",), "Say which jobs"),
        (("watch", "x", "--tag", "t"), "not both"),
        (("submit",), "Name a TASK"),
        (("submit", "echo", "--unique-window", "1h"), "needs a --unique-key"),
        (("submit", "echo", "value=1", "--file", "-"), "has the arguments"),
        (("submit", "--file", "no-such-file"), "does not exist"),
    ],
)
def test_what_is_left_open_is_wrong_usage(celeriac, words: tuple[str, ...], told: str):
    result = celeriac(*words)

    assert result.returncode == 2
    assert told in result.stderr


def test_options_of_the_server_stand_before_or_behind_the_command(celeriac):
    for words in (
        ("jobs", "--url", "http://127.0.0.1:9", "show", "x"),
        ("jobs", "show", "x", "--url", "http://127.0.0.1:9"),
    ):
        assert celeriac(*words, CELERIAC_TOKEN="x").returncode == 3


def test_several_jobs_are_watched_to_their_ends(celeriac):
    ids = [submitted(celeriac, "sleep", f"seconds={n / 10}") for n in (1, 3)] + [
        submitted(celeriac, "divide", "x=1", "y=0")
    ]
    result = celeriac("watch", *ids)

    assert result.returncode == 1
    assert {line.split()[0]: line.split()[2] for line in result.stdout.splitlines()} == dict(
        zip(ids, ("succeeded", "succeeded", "failed"), strict=True)
    )
    assert "3 jobs: " in result.stderr


def test_jobs_of_a_filter_are_watched_as_json_lines(celeriac):
    ids = [submitted(celeriac, "sleep", "seconds=0.3", "--tag", "crowd") for _ in range(3)]
    seen = json_of(celeriac("watch", "--tag", "crowd", "--json").stdout)

    assert {job["id"]: job["state"] for job in seen} == dict.fromkeys(ids, "succeeded")


def test_jobs_that_had_failed_before_the_watching_count(celeriac):
    celeriac("submit", "divide", "x=1", "y=0", "--tag", "over")
    celeriac("submit", "echo", "value=1", "--tag", "over")
    result = celeriac("watch", "--tag", "over")

    assert result.returncode == 1
    assert sorted(line.split()[2] for line in result.stdout.splitlines()) == ["failed", "succeeded"]


def test_a_batch_that_is_not_there_is_an_error(celeriac):
    result = celeriac("watch", "--batch", "nope")

    assert result.returncode == 1
    assert "There is no batch 'nope'" in result.stderr


def test_a_file_of_arguments_becomes_a_job_a_line(celeriac):
    lines = "".join(json.dumps({"value": n}) + "\n" for n in range(5))
    result = celeriac("submit", "echo", "--file", "-", "--tag", "lines", input=lines)

    assert (result.returncode, result.stdout) == (0, "5 jobs in 1 batch.\n")
    assert {job["args"]["value"] for job in json_of(celeriac("jobs", "--tag", "lines", "--json").stdout)} == set(
        range(5)
    )


def test_all_batches_of_a_file_are_named_to_be_watched(celeriac, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("celeriac.cli.lines.BATCH", 2)
    result = celeriac("submit", "echo", "--file", "-", input='{"value": 1}\n' * 5)
    watch = result.stderr.partition("Next: celeriac ")[2].split()

    assert len(celeriac(*watch).stdout.splitlines()) == 5


def test_the_same_file_with_the_same_key_makes_nothing_twice(served: Path, celeriac):
    (served / "jobs.jsonl").write_text(
        '{"task": "echo", "args": {"value": 1}}\n\n{"task": "echo", "args": [2], "queue": "large"}\n'
    )
    one, other = (json_of(celeriac("submit", "--file", "jobs.jsonl", "--key", "k2", "--json").stdout) for _ in range(2))

    assert [batch["id"] for batch in one] == [batch["id"] for batch in other]


def test_a_file_goes_on_where_it_stopped(served: Path, celeriac, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("celeriac.cli.lines.BATCH", 2)
    lines = [json.dumps({"value": n}) + "\n" for n in range(5)]
    words = ("submit", "echo", "--file", "long.jsonl", "--key", "k3", "--tag", "resumed")
    (served / "long.jsonl").write_text("".join([*lines[:3], "{broken\n"]))
    stopped = celeriac(*words)
    before = celeriac("jobs", "--tag", "resumed", "--json").stdout
    (served / "long.jsonl").write_text("".join(lines))
    done = celeriac(*words)

    assert (stopped.returncode, len(json_of(before))) == (1, 2)
    assert (done.returncode, done.stdout) == (0, "5 jobs in 3 batches.\n")
    after = json_of(celeriac("jobs", "--tag", "resumed", "--json").stdout)
    assert sorted(job["args"]["value"] for job in after) == [0, 1, 2, 3, 4]


def test_the_command_that_is_told_goes_on_where_it_stopped(served: Path, celeriac, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("celeriac.cli.lines.BATCH", 2)
    file = served / "told.jsonl"
    file.write_text('{"value": 1}\n{"value": 2}\n{broken\n')
    url = running(served / ".celeriac").url
    options = "--tag told --tag 'it is' --queue large --priority 3 --delay 1.5s --expires-at 2h --time-limit 1m"
    words = [*shlex.split(options), "--max-attempts", "2", "--url", url]
    stopped = celeriac("submit", "echo", "--file", "told.jsonl", *words)
    [told] = [line for line in stopped.stderr.splitlines() if line.startswith("To go on")]
    file.write_text('{"value": 1}\n{"value": 2}\n{"value": 3}\n')
    done = celeriac(*shlex.split(told.partition(": celeriac ")[2]))

    assert (done.returncode, done.stdout) == (0, "3 jobs in 2 batches.\n")
    jobs = json_of(celeriac("jobs", "--tag", "told", "--json").stdout)
    assert [(job["queue"], job["priority"], job["max_attempts"]) for job in jobs] == [("large", 3, 2)] * 3
    assert {tuple(job["tags"]) for job in jobs} == {("told", "it is")}


def test_of_more_batches_than_can_be_asked_for_the_newest_are_watched(celeriac, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("celeriac.cli.lines.BATCH", 1)
    result = celeriac("submit", "echo", "--file", "-", "--wait", input='{"value": 1}\n' * 102)

    assert (result.returncode, len(result.stdout.splitlines())) == (0, 100)


def test_a_line_that_is_refused_is_named_and_nothing_of_its_batch_is_submitted(celeriac):
    lines = '{"value": 1}\n\n{"wrong": 2}\n'
    result = celeriac("submit", "echo", "--file", "-", "--tag", "refused", input=lines)

    assert result.returncode == 1
    assert "line 3: /args/wrong" in result.stderr
    assert "To go on where this stopped: celeriac submit echo --file - --key " in result.stderr
    assert celeriac("jobs", "--tag", "refused", "--json").stdout == ""


@pytest.mark.parametrize(("text", "told"), [("{broken", "Line 1 is not JSON"), ("[1]", "Line 1 is not a job")])
def test_a_line_that_is_no_job_is_told(celeriac, text: str, told: str):
    result = celeriac("submit", "--file", "-", input=text)

    assert result.returncode == 1
    assert told in result.stderr


def test_a_file_is_submitted_and_watched(celeriac):
    result = celeriac("submit", "divide", "--file", "-", "--wait", input='{"x": 1, "y": 2}\n{"x": 1, "y": 0}\n')

    assert result.returncode == 1
    assert sorted(line.split()[2] for line in result.stdout.splitlines()) == ["failed", "succeeded"]


def test_a_unique_key_makes_one_job(celeriac):
    words = ("echo", "value=1", "--delay", "1h", "--unique-key", "only-one")

    assert submitted(celeriac, *words) == submitted(celeriac, *words)


def test_a_time_limit_ends_a_job(celeriac):
    result = celeriac("submit", "sleep", "seconds=30", "--time-limit", "1s")

    assert result.returncode == 1
    assert "TimeLimitExceeded" in result.stderr


def test_a_followed_job_shows_its_history(celeriac):
    result = celeriac("submit", "echo", "value=1", "--follow")

    assert result.stdout == "1\n"
    assert "submitted" in result.stderr


# Queues and workers


def test_a_paused_queue_gives_nothing_out(celeriac):
    assert celeriac("queues", "pause", "small").stdout == "small is paused.\n"
    try:
        id = submitted(celeriac, "echo", "value=1")
        shown = celeriac("queues").stdout
        assert json_of(celeriac("jobs", "show", id, "--json").stdout)[0]["state"] == "queued"
        assert re.search(r"^small +paused +1 ", shown, re.MULTILINE), shown
    finally:
        assert celeriac("queues", "resume", "small").stdout == "small is no longer paused.\n"
    assert celeriac("watch", id).stdout == "1\n"


def test_a_queue_that_nobody_hears_is_told(celeriac):
    id = submitted(celeriac, "echo", "value=1", "--queue", "nowhere")

    assert "No worker listens to nowhere." in celeriac("queues").stderr
    celeriac("jobs", "cancel", id)


def test_a_queue_whose_name_looks_like_markup_is_told_as_it_is(celeriac):
    id = submitted(celeriac, "echo", "value=1", "--queue", "a[/b]")

    assert "No worker listens to a[/b]." in celeriac("queues").stderr
    celeriac("jobs", "cancel", id)


def test_a_queue_whose_name_has_spaces_is_quoted_where_it_is_to_be_typed(celeriac):
    assert "Next: celeriac queues resume 'to be' ' '" in celeriac("queues", "pause", "to be", " ").stderr
    assert celeriac("queues", "resume", "to be", " ").returncode == 0
    id = submitted(celeriac, "echo", "value=1", "--queue", " ")

    assert [job["id"] for job in json_of(celeriac("jobs", "--queue", " ", "--json").stdout)] == [id]
    assert "Next: celeriac worker APP -Q ' '" in celeriac("queues").stderr
    celeriac("jobs", "cancel", id)


def test_workers_are_listed(celeriac):
    listed = celeriac("workers").stdout

    assert [line.split()[0].split("@")[0] for line in listed.splitlines()] == ["worker", "large", "small"]
    assert {worker["online"] for worker in json_of(celeriac("workers", "--json").stdout)} == {True}


def test_a_running_instance_is_measured(celeriac):
    [figures] = json_of(celeriac("bench", "--running", "-n", "100", "--clients", "4", "--json").stdout)

    assert (figures["jobs"], figures["submits_per_second"] > 0, figures["alone_p50_ms"] > 0) == (100, True, True)
