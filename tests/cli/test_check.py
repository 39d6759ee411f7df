"""`celeriac check`: finds what is wrong, says what to do about it, and changes nothing."""

import contextlib
import json
import shutil
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import postgres
import pytest

from celeriac import clock
from celeriac.jobs import Message, Submission, Worker, new_id
from celeriac.ledger import Ledger, migrations, nodes, submit

SHOP = """
from celeriac import Celeriac

app = Celeriac("shop")


@app.task(name="sell", queue="till")
def sell(pieces): ...
"""


def findings(result) -> dict[str, list[tuple[str, str]]]:
    """Subject -> level and message of each finding."""
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in json.loads(result.stdout)["findings"]:
        found.setdefault(finding["about"], []).append((finding["level"], finding["message"]))
    return found


@pytest.fixture
def check(celeriac):
    return lambda *words: findings(celeriac("check", *words, "--json"))


@pytest.fixture
def ledger(folder: Path, blank_sqlite: Path):
    (folder / ".celeriac").mkdir(mode=0o700)
    opened = Ledger(f"sqlite:///{shutil.copy(blank_sqlite, folder / '.celeriac' / 'ledger.db')}")
    yield opened
    opened.close()


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"shop_{new_id().replace('-', '')}"
    (folder / f"{name}.py").write_text(SHOP)
    monkeypatch.syspath_prepend(str(folder))
    return f"{name}:app"


def submitted(ledger: Ledger, queue: str) -> None:
    ledger.do(submit, Submission(new_id(), "sell", queue, "ann", Message("{}", "{}", "[[],{},{}]")))


def at_work(ledger: Ledger, *queues: str) -> None:
    now = clock.micros()
    worker = Worker(new_id(), "w@h", "h", 1, queues, ("sell",), 1, "prefork", "0", now, now, None, None)
    ledger.do(nodes.register, worker)


def test_an_empty_folder_gets_warnings_and_stays_empty(celeriac, folder):
    result = celeriac("check", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    levels = {about: found[0][0] for about, found in findings(result).items()}
    assert {about for about, level in levels.items() if level == "warning"} - {"user"} == {"home", "database", "app"}
    assert list(folder.iterdir()) == []


def test_it_looks_at_fifteen_things_at_least(ledger: Ledger, check):
    assert len(check("celeriac.demo.tasks:app")) >= 15


def test_all_is_well(celeriac, ledger: Ledger):
    at_work(ledger, "small", "large")
    with ledger.transaction() as tx:
        nodes.campaign(tx, "keeper", "k@h", None)
    result = celeriac("check", "celeriac.demo.tasks:app")

    assert result.exit_code == 0
    assert {line[0] for line in result.stdout.splitlines() if " user " not in line} == {"✓"}
    assert "crunch, divide, echo, lcs, sleep" in result.stdout
    assert "Next: celeriac dev" in result.stderr


def test_errors_come_last_where_the_eye_is(celeriac):
    result = celeriac("check", "no.such.app")
    marks = [line[0] for line in result.stdout.splitlines()]

    assert marks == sorted(marks, key="✓!✗".index)
    assert marks.count("✗") == 1  # told once, though three looks need the app
    assert result.exit_code == 1


def test_an_app_that_does_not_import_is_an_error_with_its_place(check, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "broken_for_check.py").write_text("from celeriac import Celeriac\n\n1 / 0\n")
    [(level, message)] = check("broken_for_check:app")["app"]

    assert level == "error"
    assert "ZeroDivisionError: division by zero" in message
    assert "broken_for_check.py:3" in message


@pytest.mark.parametrize(("port", "code"), [("8787", 0), ("x", 1)])
def test_wrong_settings_are_an_error(celeriac, monkeypatch, port: str, code: int):
    monkeypatch.setenv("CELERIAC_PORT", port)

    assert celeriac("check").exit_code == code


def test_misspelt_settings_are_told_with_what_was_meant(check, folder: Path, monkeypatch):
    monkeypatch.setenv("CELERIAC_PROT", "1")
    (folder / "celeriac.toml").write_text("jobdays = 3\n")
    found = check()

    assert found["variables"] == [("warning", "CELERIAC_PROT is set, and nobody reads it. Did you mean CELERIAC_PORT?")]
    assert "'jobdays', and nobody reads it. Did you mean job_days?" in found["file"][0][1]


def test_a_file_that_is_no_toml_is_an_error(celeriac, folder: Path):
    (folder / "celeriac.toml").write_text("port = ")
    result = celeriac("check")

    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_a_home_that_is_a_file_is_an_error(celeriac, folder):
    (folder / "home").write_text("")
    result = celeriac("check", "--home", "home")

    assert result.exit_code in (1, 2)
    assert "home" in result.output


def test_an_open_home_is_a_warning_and_an_open_token_an_error(check, folder):
    (folder / ".celeriac").mkdir(mode=0o755)
    (folder / ".celeriac" / "token").write_text("secret")
    (folder / ".celeriac" / "token").chmod(0o644)
    found = check()

    assert found["home"][0][0] == "warning"
    assert found["token"][0][0] == "error"
    assert "chmod 600" in found["token"][0][1]


def test_a_taken_port_is_an_error_that_names_a_free_one(check, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("CELERIAC_PORT", str(taken.getsockname()[1]))
        [(level, message)] = check()["port"]

    assert level == "error"
    assert "--port" in message


def test_a_port_where_celeriac_itself_answers_is_fine(check, monkeypatch):
    class Alive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"status":"alive"}' if self.path == "/healthz" else b""
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
        monkeypatch.setenv("CELERIAC_PORT", str(server.server_port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            [(level, message)] = check()["port"]
        finally:
            server.shutdown()

    assert (level, message) == ("fine", f"a Celeriac web process answers at http://127.0.0.1:{server.server_port}")


def test_a_host_that_others_reach_needs_names(check, monkeypatch):
    monkeypatch.setenv("CELERIAC_HOST", "0.0.0.0")
    assert check()["hosts"][0][0] == "error"

    monkeypatch.setenv("CELERIAC_ALLOWED_HOSTS", '["jobs.example.org"]')
    assert check()["hosts"][0][0] == "fine"


def test_a_database_of_a_newer_version_is_an_error_told_once(check, ledger: Ledger, folder: Path):
    with sqlite3.connect(folder / ".celeriac" / "ledger.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    errors = [message for found in check().values() for level, message in found if level == "error"]

    assert len(errors) == 1
    assert "9999" in errors[0]


def test_a_migration_that_is_not_finished_is_a_warning(check, ledger: Ledger, folder: Path):
    assert check()["database"][0][0] == "fine"
    with contextlib.closing(sqlite3.connect(folder / ".celeriac" / "ledger.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0002'")
    [(level, message)] = check()["database"]

    assert level == "warning"
    assert "celeriac migrate --finish" in message


def test_a_file_that_is_no_database_is_an_error(celeriac, folder: Path):
    (folder / ".celeriac").mkdir(mode=0o700)
    (folder / ".celeriac" / "ledger.db").write_bytes(b"no database" * 1000)
    result = celeriac("check")

    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_waiting_jobs_without_workers_and_paused_queues_are_told(check, ledger: Ledger):
    submitted(ledger, "till")
    at_work(ledger, "other")
    [(level, message)] = check()["queues"]

    assert level == "warning"
    assert "1 job waiting in 'till'" in message


def test_tasks_are_told_whose_arguments_nobody_checks_and_whose_queue_nobody_hears(check, ledger: Ledger, shop: str):
    at_work(ledger, "other")
    found = check(shop)

    assert found["signatures"] == [("warning", "without annotations, so their arguments are not checked: sell")]
    assert found["workers"][0][0] == "warning"
    assert "'till'" in found["workers"][0][1]


def test_one_queue_has_workers_in_good_english(check, ledger: Ledger):
    at_work(ledger, "till")

    assert check()["queues"] == [("fine", "1 queue has workers, and no job waits in another")]


def test_a_variable_like_no_other_is_told_without_a_guess(check, monkeypatch):
    monkeypatch.setenv("CELERIAC_FOO", "1")

    [(_, message)] = check()["variables"]
    assert "Did you mean" not in message


def test_a_database_that_is_away_is_told_once_and_in_one_sentence(celeriac, monkeypatch, caplog):
    monkeypatch.setenv("CELERIAC_DATABASE_URL", "postgresql://celeriac@127.0.0.1:1/celeriac")
    result = celeriac("check", "--json")

    assert [about for about, found in findings(result).items() if found[0][0] == "error"] == ["database"]
    assert "announcements" not in findings(result)
    assert "?." not in result.output
    assert (result.stderr, caplog.records) == ("", [])


def test_no_keeper_is_a_warning(check, ledger: Ledger):
    assert check()["keeper"][0][0] == "warning"


# Postgres


@pytest.fixture
def database(check, monkeypatch: pytest.MonkeyPatch):
    """Makes the URL of a server the ledger's and checks it."""

    def checked(url: str) -> dict[str, list[tuple[str, str]]]:
        monkeypatch.setenv("CELERIAC_DATABASE_URL", url)
        return check()

    return checked


@pytest.mark.postgres
def test_a_server_is_looked_at(database, folder: Path, monkeypatch: pytest.MonkeyPatch):
    if postgres.binaries() is None and not postgres.required():
        pytest.skip("Postgres is not installed")
    with postgres.private("synchronous_commit=off", "max_connections=20") as server:
        url = server.conninfo()
        assert "celeriac migrate" in str(database(url)["database"])
        ledger = Ledger(url.replace("postgresql:", "postgresql+psycopg:"))
        migrations.upgrade(ledger)
        ledger.close()
        found = database(url)

        told = " ".join(message for _, message in found["server"])
        assert all(word in told for word in ("Postgres 1", "fsync is off", "synchronous_commit", "max_connections"))
        assert (found["clock"][0][0], found["announcements"][0][0]) == ("fine", "fine")
        clock.shift(5_000_000)
        try:
            assert database(url)["clock"][0][0] == "warning"
        finally:
            clock.shift(-5_000_000)
        with monkeypatch.context() as patch:
            patch.setenv("CELERIAC_DATABASE_DIRECT_URL", "postgresql://celeriac@127.0.0.1:1/celeriac")
            [(level, message)] = database(url)["announcements"]
            assert (level, "CELERIAC_DATABASE_DIRECT_URL cannot be reached" in message) == ("warning", True)
        server.stop()
        gone = database(url)

    assert [level for level, _ in gone["database"]] == ["error"]
    assert "Traceback" not in str(gone)
