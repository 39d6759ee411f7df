"""`celeriac backup`: a whole copy while everything runs, never over another file."""

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import postgres
import pytest

from celeriac.access import SYSTEM
from celeriac.jobs import Message, Submission, new_id
from celeriac.ledger import Ledger, read, submit


def written(file: Path, jobs: int) -> list[str]:
    ledger = Ledger(f"sqlite:///{file}")
    message = Message("{}", "{}", "[[],{},{}]")
    ids = [ledger.do(submit, Submission(new_id(), "echo", "q", "ann", message)).id for _ in range(jobs)]
    ledger.close()
    return ids


@pytest.fixture
def file(folder: Path, blank_sqlite: Path) -> Path:
    (folder / ".celeriac").mkdir(mode=0o700)
    return Path(shutil.copy(blank_sqlite, folder / ".celeriac" / "ledger.db"))


def test_a_copy_holds_everything_and_can_be_put_back(celeriac, file: Path, folder: Path):
    ids = written(file, 3)
    report = json.loads(celeriac("backup", "copy.db", "--json").stdout)

    assert (report["jobs"], report["events"], Path(report["path"]).name) == (3, 3, "copy.db")
    file.unlink()
    shutil.copy(folder / "copy.db", file)
    ledger = Ledger(f"sqlite:///{file}")
    assert [read.job(ledger, SYSTEM, id).id for id in ids] == ids
    ledger.close()


def test_it_leaves_one_closed_file_and_says_how_to_restore(celeriac, file: Path, folder: Path):
    result = celeriac("backup", ".")
    [copy] = folder.glob("*.db")

    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [".celeriac", copy.name]
    assert f"cp {copy} {file}" in result.stderr


def test_what_it_says_to_type_can_be_typed_whatever_the_paths(celeriac, file: Path, folder: Path):
    (folder / "ann's home").mkdir(mode=0o700)
    home = folder / "ann's home" / "ledger.db"
    shutil.copy(file, home)
    result = celeriac("backup", "my copy.db", "--home", "ann's home")
    [told] = [line.partition("type: ")[2] for line in result.stderr.splitlines() if "To restore" in line]

    copy = str(folder / "my copy.db")
    assert shlex.split(told) == ["rm", "-f", f"{home}-wal", f"{home}-shm", "&&", "cp", copy, str(home)]


def test_writers_go_on_and_the_copy_is_of_one_moment(celeriac, file: Path, folder: Path):
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            written(file, 5)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reports = [json.loads(celeriac("backup", f"{n}.db", "--json").stdout) for n in range(5)]
    finally:
        stop.set()
        writer.join()

    assert [report["jobs"] == report["events"] for report in reports] == [True] * 5


def test_a_file_that_exists_is_not_overwritten(celeriac, file: Path, folder: Path):
    (folder / "copy.db").write_text("precious")
    result = celeriac("backup", "copy.db")

    assert result.exit_code == 2
    assert "exists already and is not overwritten" in result.stderr
    assert (folder / "copy.db").read_text() == "precious"


def test_a_damaged_ledger_is_told_and_leaves_no_copy(celeriac, file: Path, folder: Path):
    written(file, 200)
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b"\x5a" * (len(content) - len(content) // 2)
    file.write_bytes(content)
    result = celeriac("backup", "copy.db")

    assert result.exit_code != 0
    assert not (folder / "copy.db").exists()
    assert "Traceback" not in result.output


@pytest.mark.postgres
def test_a_ledger_on_postgres_is_dumped_and_put_back(celeriac, folder: Path, monkeypatch: pytest.MonkeyPatch):
    binaries = postgres.binaries()
    if binaries is None and not postgres.required():
        pytest.skip("Postgres is not installed")
    server = postgres.server()
    name = f"backup_{new_id().replace('-', '')}"
    url, other = server.create(name), server.create(f"{name}_restored")
    monkeypatch.setenv("CELERIAC_DATABASE_URL", url)
    monkeypatch.setenv("PATH", str(binaries), prepend=os.pathsep)
    celeriac("migrate")
    ledger = Ledger(url.replace("postgresql:", "postgresql+psycopg:"))
    id = ledger.do(submit, Submission(new_id(), "echo", "q", "ann", Message("{}", "{}", "[[],{},{}]"))).id
    ledger.close()
    result = celeriac("backup", "copy.dump")

    assert result.exit_code == 0, result.output
    assert "pg_restore" in result.stderr
    subprocess.run([binaries / "pg_restore", "-d", other, "--no-owner", folder / "copy.dump"], check=True)
    restored = Ledger(other.replace("postgresql:", "postgresql+psycopg:"))
    assert read.job(restored, SYSTEM, id).task == "echo"
    restored.close()


def test_postgres_without_its_tools_is_a_sentence(celeriac, monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setenv("CELERIAC_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("PATH", str(folder))
    result = celeriac("backup")

    assert result.exit_code == 2
    assert "pg_dump, which is not installed" in result.stderr


def test_there_must_be_a_ledger_and_a_folder(celeriac, folder: Path):
    assert "There is no database" in celeriac("backup").stderr
    assert "There is no folder" in celeriac("backup", "no/such/copy.db").stderr
    assert "There is no folder" in celeriac("backup", f"{folder}/bk/").stderr
    assert list(folder.iterdir()) == []
