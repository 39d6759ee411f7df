"""The store: writers of many processes take turns, a killed one leaves no half, a forked one opens its own."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conformance.moves import accept, counted, kinds, roll_back, select, submission, take
from databases import on_sqlite
from instance import busy, interrupted, until
from oracle import violations

from celeriac.errors import LedgerUnavailable
from celeriac.ledger import Ledger, open_ledger, read, submit
from celeriac.ledger.dialects import sqlite

TESTS = Path(__file__).parent.parent


def writer(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start one of the programs of `writers`."""
    return subprocess.Popen(
        [sys.executable, "-m", "ledger.writers", *arguments],
        cwd=TESTS, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a program; return its exit code and what it said."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def integrity(url: str) -> list[tuple[str]]:
    if not url.startswith("sqlite"):
        return [("ok",)]  # a server sees to its own files
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found


def test_writers_of_several_processes_are_never_told_that_the_database_is_locked(ledger: Ledger):
    processes = [writer("hammer", ledger.url, name, "150") for name in ("one", "two")]
    for number in range(150):
        accept(ledger, id=f"three-{number}")

    assert [result(process) for process in processes] == [(0, ""), (0, "")]
    assert counted(ledger) == {("queued", "default", "add"): 450}
    assert violations(ledger, ended=False) == []
    assert integrity(ledger.url) == [("ok",)]


def test_a_reader_does_not_wait_for_a_writer(ledger: Ledger):
    id = accept(ledger)

    with ledger.transaction() as tx:
        submit(tx, [submission(id="unseen")])
        tx.flush()
        assert kinds(ledger, id) == ["submitted"]
        assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(1,)]

    assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(2,)]


def test_a_writer_does_not_wait_for_a_reader(ledger: Ledger):
    with ledger.reading() as connection:
        before = connection.exec_driver_sql("SELECT COUNT(*) FROM jobs").scalar_one()
        accept(ledger)
    assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(before + 1,)]


def test_threads_take_turns(ledger: Ledger):
    def work(name: str) -> None:
        for number in range(20):
            accept(ledger, id=f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(str(name),)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted(ledger) == {("queued", "default", "add"): 160}


def test_the_turn_is_given_back_after_an_error(ledger: Ledger):
    roll_back(ledger, submit, submission(id="one"))

    assert accept(ledger, id="one") == "one"


def test_two_ledgers_of_one_process_share_a_file(ledger: Ledger):
    other = Ledger(ledger.url)
    threads = [
        threading.Thread(target=lambda each=each, name=name: [accept(each, id=f"{name}-{n}") for n in range(30)])
        for name, each in {"a": ledger, "b": other}.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()

    assert counted(ledger) == {("queued", "default", "add"): 60}


@pytest.mark.parametrize(("failpoint", "kept"), [("before-commit", []), ("after-commit", [("killed",)])])
def test_a_writer_that_is_killed_leaves_the_ledger_whole_and_free(ledger: Ledger, failpoint: str, kept: list):
    code, said = result(writer("submit", ledger.url, "killed", CELERIAC_FAILPOINT=failpoint))

    assert (code, said) == (-signal.SIGKILL, f"Failpoint {failpoint} kills.\n")
    assert select(ledger, "SELECT id FROM jobs") == kept
    assert accept(ledger, id="next") == "next"
    assert violations(ledger, ended=False) == []
    assert integrity(ledger.url) == [("ok",)]


def test_a_program_without_a_failpoint_survives(ledger: Ledger):
    assert result(writer("submit", ledger.url, "lived")) == (0, "survived\n")


def test_a_writer_that_is_killed_inside_its_transaction_gives_its_turn_back(ledger: Ledger):
    holder = writer("hold", ledger.url)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "inside\n"
    waiting = threading.Thread(target=accept, args=(ledger,), kwargs={"id": "waited"})
    waiting.start()

    holder.kill()
    holder.communicate(timeout=30)
    waiting.join(30)

    assert select(ledger, "SELECT id FROM jobs") == [("waited",)]
    assert violations(ledger, ended=False) == []


def test_a_child_gets_a_ledger_of_its_own(ledger: Ledger):
    assert result(writer("check-after-fork", ledger.url)) == (0, "")


def test_a_child_forked_in_the_midst_of_a_transaction_can_write(ledger: Ledger):
    assert result(writer("fork", ledger.url)) == (0, "")

    assert counted(ledger) == {("queued", "default", "add"): 3 * (2000 + 20 + 21)}
    assert violations(ledger, ended=False) == []
    assert integrity(ledger.url) == [("ok",)]


def test_a_process_has_one_ledger_for_each_url(ledger_url: str):
    opened = open_ledger(ledger_url)

    assert open_ledger(ledger_url) is opened
    opened.close()


def test_a_ledger_that_cannot_be_opened_is_unavailable(tmp_path: Path):
    missing = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    (tmp_path / "ledger.db").mkdir()

    with pytest.raises(LedgerUnavailable):
        accept(missing)
    with pytest.raises(LedgerUnavailable):
        read.any_queued(missing, ["default"])


def test_a_ledger_works_on_after_a_fault_in_a_move(ledger: Ledger):
    with pytest.raises(UnicodeEncodeError):
        accept(ledger, args="\ud800")

    accept(ledger)
    assert len(take(ledger, 5)) == 1


@on_sqlite
def test_what_is_acknowledged_is_synced(ledger: Ledger):
    with ledger.transaction() as tx:
        assert tx.connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert tx.connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


@on_sqlite
def test_a_checkpoint_folds_the_log_into_the_file(ledger: Ledger):
    path = Path(ledger.url.removeprefix("sqlite:///"))
    accept(ledger, args="x" * 500_000)
    before = path.stat().st_size

    ledger.checkpoint()

    assert path.stat().st_size > before


@on_sqlite
def test_a_strangers_open_transaction_refuses_a_write_after_a_while(ledger_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    ledger = Ledger(ledger_url)
    stranger = sqlite3.connect(ledger_url.removeprefix("sqlite:///"), isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")

    with pytest.raises(LedgerUnavailable, match="another program"):
        accept(ledger)
    stranger.execute("ROLLBACK")
    stranger.close()

    accept(ledger)
    ledger.close()


STANDS_STILL = """
import os, signal, sys
from celeriac.ledger import Ledger
with Ledger(sys.argv[1]).transaction():
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def frozen(ledger: Ledger) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands still in the midst of a write."""
    process = subprocess.Popen([sys.executable, "-c", STANDS_STILL, ledger.url])
    os.waitpid(process.pid, os.WUNTRACED)
    yield process
    process.kill()
    process.wait()


@on_sqlite
def test_a_process_that_stands_still_while_it_writes_refuses_others_after_a_while_and_no_longer(
    ledger: Ledger, frozen: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite, "TURN_SECONDS", 0.2)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="stands still"):
            accept(ledger)
    assert not read.any_queued(ledger, ["default"])  # reading goes on

    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(30) == 0
    other = subprocess.run([sys.executable, "-c", STANDS_STILL.replace("SIGSTOP", "SIGCONT"), ledger.url])
    assert other.returncode == 0  # what was waited for and not taken is not kept
    monkeypatch.setattr(sqlite, "TURN_SECONDS", 30)
    accept(ledger)


def test_a_file_that_is_no_database_is_told_by_its_name(tmp_path: Path):
    file = tmp_path / "ledger.db"
    file.write_text("This is a letter to my aunt, and not at all a database." * 99)

    with closing(Ledger(f"sqlite:///{file}")) as ledger, pytest.raises(LedgerUnavailable, match=f"{file} is damaged"):
        accept(ledger)


@on_sqlite
def test_a_turn_that_is_waited_for_when_a_signal_comes_is_not_kept(ledger: Ledger, frozen: subprocess.Popen[bytes]):
    with interrupted(0.2):
        accept(ledger)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(30) == 0

    other = subprocess.run([sys.executable, "-c", STANDS_STILL.replace("SIGSTOP", "SIGCONT"), ledger.url])
    assert other.returncode == 0
    accept(ledger)


@on_sqlite
def test_a_turn_that_is_waited_for_is_had_as_soon_as_it_is_free(ledger: Ledger, frozen: subprocess.Popen[bytes]):
    threads = [threading.Thread(target=accept, args=[ledger]) for _ in range(5)]
    with busy(threads, threading.Event()):
        until(lambda: ledger._dialect.turn._lock._waits, "one of them to wait for the file")
        assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(0,)]
        frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(30) == 0

    assert select(ledger, "SELECT COUNT(*) FROM jobs") == [(5,)]


@on_sqlite
def test_a_transaction_within_a_transaction_is_an_error_and_no_deadlock(ledger: Ledger):
    with ledger.transaction(), pytest.raises(RuntimeError, match="already"):
        accept(ledger)
