"""Starting and stopping the web process."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import httpx
import pytest
from instance import until

from celeriac.errors import CannotStart, LedgerVersion
from celeriac.ledger import close_ledger
from celeriac.settings import load
from celeriac.web import serve
from celeriac.web.server import address_of, bind
from web.house import House
from web.tasks_for_web import app

SCRIPT = """
import sys
from celeriac.settings import load
from celeriac.web import serve
from web.tasks_for_web import app
serve(load(home=sys.argv[1], port=0), app, ready=lambda address: print(address, flush=True))
print("ended", flush=True)
"""

LOSES_ITS_LEDGER = SCRIPT.replace(
    "serve(load",
    """
from celeriac.errors import LedgerUnavailable
from celeriac.ledger import migrations
def check(ledger):
    migrations.check = gone
def gone(ledger):
    raise LedgerUnavailable("It has gone.")
migrations.check = check
serve(load""",
)


@pytest.mark.parametrize("path", ["//evil.example/", "//evil.example", "//", "//localhost/docs"])
def test_a_path_with_two_slashes_is_a_path_and_no_host(shared: House, path: str):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in connection.recv(4096).splitlines()[0]


def test_a_taken_port_is_told_in_one_sentence(tmp_path: Path, blank_sqlite: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {port} on 127.0.0.1 is taken.*CELERIAC_PORT"):
            serve(load(home=tmp_path, port=port, database_url=f"sqlite:///{blank_sqlite}"), app)
    close_ledger(f"sqlite:///{blank_sqlite}")


def test_an_address_of_another_machine_is_told():
    with pytest.raises(CannotStart, match="CELERIAC_HOST"):
        bind("192.0.2.1", 0)
    with pytest.raises(CannotStart, match="CELERIAC_HOST"):
        bind("no.such.host.invalid", 0)


def test_port_0_picks_a_free_one():
    with bind("127.0.0.1", 0) as listener:
        assert address_of(listener, "127.0.0.1") == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_ledger_of_another_version_is_refused_before_anything_listens(tmp_path: Path):
    with pytest.raises(LedgerVersion, match="celeriac migrate"):
        serve(load(home=tmp_path, port=0), app)
    close_ledger(load(home=tmp_path).ledger_url)


def test_a_folder_of_pages_without_an_index_is_refused(tmp_path: Path):
    with pytest.raises(CannotStart, match=r"index\.html"):
        serve(load(home=tmp_path, port=0), app, tmp_path)


@contextmanager
def serving(home: Path, database: Path, script: str = SCRIPT, drain: float = 0) -> Iterator[tuple[Popen[str], str]]:
    """Give a web process of its own and its address."""
    (home / "ledger.db").write_bytes(database.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "CELERIAC_DRAIN_SECONDS": str(drain)}
    process = Popen([sys.executable, "-c", script, str(home)], stdout=PIPE, stderr=PIPE, text=True, env=environment)
    try:
        assert process.stdout
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def served(tmp_path: Path, blank_sqlite: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Popen[str], str]]:
    """Such a process that drains for as many seconds as the test says, else for none."""
    with serving(tmp_path, blank_sqlite, drain=getattr(request, "param", 0)) as it:
        yield it


def ended(process: Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_order(served: tuple[Popen[str], str], number: int):
    process, address = served
    with httpx.Client(base_url=address, trust_env=False) as client:  # its connection stays open
        assert client.get("/healthz").status_code == 200
        process.send_signal(number)

        assert ended(process) == (0, "ended\n", "")


@pytest.mark.parametrize("served", [60], indirect=True)
def test_a_process_told_to_stop_is_not_ready_and_still_serves(served: tuple[Popen[str], str]):
    process, address = served
    with httpx.Client(base_url=address, trust_env=False) as client:
        assert client.get("/readyz").status_code == 200
        process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503, "it to say that it is not ready")

        assert client.get("/readyz").json()["code"] == "stopping"
        answer = client.get("/api/v1/jobs")
        assert (answer.status_code, answer.headers["connection"]) == (401, "close")
        process.send_signal(signal.SIGTERM)  # enough
        assert ended(process) == (0, "ended\n", "")


@pytest.mark.parametrize("served", [0.2], indirect=True)
def test_a_drained_process_ends_by_itself(served: tuple[Popen[str], str]):
    process, address = served
    assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200
    process.send_signal(signal.SIGTERM)

    assert ended(process) == (0, "ended\n", "")


def test_a_ledger_that_goes_while_the_process_starts_is_waited_for(tmp_path: Path, blank_sqlite: Path):
    with serving(tmp_path, blank_sqlite, LOSES_ITS_LEDGER) as (process, address):
        assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200
        process.terminate()

        assert ended(process) == (0, "ended\n", "")
