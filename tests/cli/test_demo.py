"""The real `celeriac demo`: processes, ports and signals, as a person at a terminal has them."""

import http.client
import os
import random
import re
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from cli.terminal import Terminal, alive, json_of, pause, run, until

READY = r"celeriac demo is ready\."
# Ctrl-C is clean from our first instruction on; what comes before is Python's own start.
AT_ONCE = (
    sys.executable, "-P", "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); print('begun', flush=True);"
    "from celeriac.cli import main; main()",
)  # fmt: skip
NAMES = ("celeriac: web", "small@", "large@", "celeriac: keeper")


def demo(terminal, **options: object) -> Terminal:
    started = terminal("demo", "--port", "0", **options)
    started.shows(READY)
    return started


def link_of(terminal: Terminal) -> str:
    return terminal.shows(r"http://\S+/login\?ticket=\S+")[0]


def opened(url: str) -> tuple[int, str]:
    """The status and the cookie a browser gets for a link."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Set-Cookie", "")
    finally:
        connection.close()


def jobs_run(folder: Path) -> bool:
    return run(folder, "submit", "echo", "value=1").stdout == "1\n"


def test_the_link_logs_in_once(terminal):
    link = link_of(demo(terminal))
    status, cookie = opened(link)

    assert status in (302, 303)
    assert "celeriac" in cookie.lower()
    assert opened(link)[1] == ""


def test_a_job_is_submitted_from_a_second_terminal_and_ctrl_c_ends_all(terminal, tmp_path: Path):
    running = demo(terminal)
    result = run(tmp_path, "submit", "lcs", "a=banana", "b=ananas")

    assert (result.returncode, '"text": "anana"' in result.stdout) == (0, True), result
    running.ctrl_c()
    assert running.end() == 0
    assert "Traceback" not in running.all
    assert "Stopped" in running.err


def test_long_texts_go_to_the_large_worker(terminal, tmp_path: Path):
    demo(terminal)
    (tmp_path / "long.txt").write_text("ab" * 2000)
    short = json_of(run(tmp_path, "submit", "lcs", "a=ab", "b=b", "--json").stdout)[0]
    long = json_of(run(tmp_path, "submit", "lcs", "a=@long.txt", "b=@long.txt", "--json").stdout)[0]

    assert (short["queue"], long["queue"]) == ("small", "large")
    assert str(short["worker"]).startswith("small@")
    assert str(long["worker"]).startswith("large@")


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_process_is_started_again(terminal, tmp_path: Path, name: str):
    running = demo(terminal)
    victim = until(lambda: running.process(name), f"{name} runs")
    victim.kill()
    running.shows(r"was killed by SIGKILL; starting it again in 1 s")

    def back() -> psutil.Process | None:
        found = running.process(name)
        return found if found and found.pid != victim.pid else None

    until(back, f"{name} is back")
    until(lambda: jobs_run(tmp_path), "jobs run again")
    running.ctrl_c()
    assert running.end() == 0


def test_a_second_one_on_the_same_folder_is_refused_and_harms_nothing(terminal, tmp_path: Path):
    running = demo(terminal)
    port = urlsplit(link_of(running)).port
    second = run(tmp_path, "dev", "celeriac.demo.tasks:app", "--port", "0")

    assert second.returncode == 2
    assert f"`celeriac demo` (process {running.pid}, port {port}) runs on the folder" in second.stderr
    assert jobs_run(tmp_path)


def test_two_folders_run_side_by_side(terminal, tmp_path: Path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        demo(terminal, folder=folder)

    assert all(jobs_run(folder) for folder in folders)
    assert [len(run(folder, "jobs", "--json").stdout.splitlines()) for folder in folders] == [1, 1]


def test_a_taken_port_is_a_sentence_with_a_free_one(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = run(tmp_path, "demo", "--port", str(other.getsockname()[1]))

    assert result.returncode == 2
    assert re.search(r"^celeriac: Port \d+ of 127.0.0.1 is taken .*`celeriac demo --port \d+`\.$", result.stderr)


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = run(tmp_path, "demo", "--home", "file/home")

    assert result.returncode == 2
    assert result.stderr.startswith("celeriac: The folder file/home cannot be used: Not a directory.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_sentence(tmp_path: Path):
    tmp_path.chmod(0o500)
    result = run(tmp_path, "demo")

    assert result.returncode == 2
    assert "cannot be used: Permission denied" in result.stderr


def test_sigterm_ends_it_too(terminal):
    running = demo(terminal)
    running.send(signal.SIGTERM)

    assert running.end() == 0


def test_a_second_ctrl_c_ends_a_long_job_at_once_and_the_job_goes_on_next_time(terminal, tmp_path: Path):
    running = demo(terminal)
    id = run(tmp_path, "submit", "sleep", "seconds=3", "--no-wait").stdout.strip()
    until(lambda: json_of(run(tmp_path, "jobs", "show", id, "--json").stdout)[0]["started_at"], "the job has started")
    running.ctrl_c()
    running.shows("celeriac │ Stopping\n")
    running.ctrl_c()
    assert running.end() == 0
    assert "Traceback" not in running.all

    demo(terminal)
    assert run(tmp_path, "watch", id).stdout == "3\n"


@pytest.mark.parametrize("seed", range(8))
def test_ctrl_c_at_any_moment_is_clean(terminal, seed: int):
    chance = random.Random(seed)
    running = terminal("demo", "--port", "0", before=AT_ONCE)
    running.shows("begun")
    for _ in range(chance.choice([1, 1, 2])):
        pause(chance.uniform(0, 2.5))
        if alive(psutil.Process(running.pid)):
            running.ctrl_c()
    code = running.end()

    assert code in (0, -signal.SIGINT), running.all  # killed by the signal itself before anything was begun
    assert "Traceback" not in running.all
    assert "KeyboardInterrupt" not in running.all


@pytest.mark.parametrize("moment", ["Starting", READY])
def test_when_it_is_killed_its_processes_end(terminal, moment: str):
    running = terminal("demo", "--port", "0")
    running.shows(moment)
    until(running.family, "it has a child")
    running.send(signal.SIGKILL)

    assert running.end() == -signal.SIGKILL


def test_after_a_kill_it_starts_again_with_its_data(terminal, tmp_path: Path):
    running = demo(terminal)
    assert jobs_run(tmp_path)
    secret = (tmp_path / ".celeriac" / "token").read_text()
    running.send(signal.SIGKILL)
    running.end()

    demo(terminal)
    assert (tmp_path / ".celeriac" / "token").read_text() == secret
    assert len(run(tmp_path, "jobs", "--json").stdout.splitlines()) == 1


def test_logs_are_kept_and_hold_no_secret(terminal, tmp_path: Path):
    running = demo(terminal)
    ticket = link_of(running).partition("ticket=")[2]
    secret = (tmp_path / ".celeriac" / "token").read_text().strip()
    running.ctrl_c()
    running.end()
    logs = {path.name: path.read_text() for path in (tmp_path / ".celeriac" / "logs").iterdir()}

    assert set(logs) == {"web.log", "small.log", "large.log", "keeper.log"}
    assert "Listening on" in logs["web.log"]
    assert not any(text in log for log in logs.values() for text in (ticket, secret))
