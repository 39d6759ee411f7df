"""Migrations: they make the schema of schema.py, keep what is there, and refuse what they do not know."""

import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from conformance.moves import accept, counted, kinds, select, submission, take
from databases import DATABASES, on_postgres, on_sqlite
from sqlalchemy import inspect

from celeriac.access import SYSTEM
from celeriac.errors import LedgerVersion
from celeriac.jobs import Filter
from celeriac.ledger import Ledger, keys, migrations, read, submit
from celeriac.ledger.schema import metadata

NUMBERS = itertools.count()
LATER = '''"""A later release adds a column."""
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None
def upgrade():
    op.add_column("queues", sa.Column("later", sa.Text()))
'''


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger whose database has nothing in it."""
    ledger = Ledger(f"sqlite:///{tmp_path}/empty.db")
    yield ledger
    ledger.close()


@pytest.fixture
def later_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this program one that knows a revision more."""
    scripts = tmp_path / "scripts"
    shutil.copytree(Path(migrations.__file__).parent, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "r9999_later.py").write_text(LATER.format(head=migrations.HEAD))
    config = Config()
    config.set_main_option("script_location", str(scripts))
    monkeypatch.setattr(migrations, "_config", lambda: config)
    monkeypatch.setattr(migrations, "HEAD", "9999")


def write_revision(ledger: Ledger, revision: str) -> None:
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def shape(ledger: Ledger) -> dict[str, object]:
    """Tables with their columns and keys as the database tells them, and the SQL of every index."""
    with ledger.reading() as connection:
        seen = inspect(connection)
        tables = {
            name: (
                [{**column, "type": str(column["type"])} for column in seen.get_columns(name)],
                seen.get_pk_constraint(name)["constrained_columns"],
                sorted(constraint["column_names"] for constraint in seen.get_unique_constraints(name)),
            )
            for name in seen.get_table_names()
            if name != "alembic_version"
        }
    indexes = select(ledger, "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    counters = select(ledger, "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY name")
    return {"tables": tables, "indexes": {name: re.sub(r"\s+", " ", sql) for name, sql in indexes}, "auto": counters}


@on_sqlite
def test_the_migrations_make_exactly_the_schema(ledger: Ledger, empty: Ledger):
    with empty.transaction() as tx:
        metadata.create_all(tx.connection)

    assert shape(ledger) == shape(empty)
    assert " WHERE state = 'queued'" in shape(ledger)["indexes"]["jobs_ready"]


# What a database tells of itself: columns with types and the order of their letters, and every index.
CATALOGUE = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name"
    " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1",
)


@on_postgres
def test_the_migrations_make_exactly_the_schema_on_postgres_too(ledger: Ledger):
    made = Ledger(postgres.server().create("by_metadata").replace("postgresql:", "postgresql+psycopg:"))
    with made.transaction() as tx:
        metadata.create_all(tx.connection)

    for question in CATALOGUE:
        assert select(ledger, question) == select(made, question)
    made.close()


def test_the_known_revision_is_the_last_script():
    assert ScriptDirectory.from_config(migrations._config()).get_current_head() == migrations.HEAD


def test_an_empty_database_is_upgraded_once(empty: Ledger):
    assert migrations.revision(empty) is None

    assert migrations.upgrade(empty) is True

    assert migrations.revision(empty) == migrations.HEAD
    assert migrations.upgrade(empty) is False
    migrations.check(empty)


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(empty: Ledger):
    with empty.transaction() as tx:
        tx.connection.exec_driver_sql("CREATE TABLE workers (id INTEGER)")  # in the way of the migration

    with pytest.raises(Exception, match="workers"):
        migrations.upgrade(empty)

    assert select(empty, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("workers",)]
    assert migrations.revision(empty) is None


def migrating(url: str, **environment: str) -> subprocess.Popen[bytes]:
    """`celeriac migrate` as a process of its own."""
    variables = {**os.environ, "CELERIAC_DATABASE_URL": url.replace("+psycopg", ""), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "celeriac", "migrate"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    request.getfixturevalue("blank_postgres")
    return postgres.server().create(f"empty_{next(NUMBERS)}").replace("postgresql:", "postgresql+psycopg:")


def test_a_migration_that_is_killed_leaves_nothing_behind_and_can_be_repeated(empty_url: str):
    killed = migrating(empty_url, CELERIAC_FAILPOINT="before-commit")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    ledger = Ledger(empty_url)
    assert migrations.revision(ledger) is None

    again = migrating(empty_url)

    assert b"0002" in again.communicate(timeout=60)[0]
    assert migrations.revision(ledger) == migrations.HEAD
    ledger.close()


def fill_at_0001(ledger: Ledger) -> None:
    """A ledger as revision 0001 left it, with a job in each kind of place."""
    with ledger.transaction() as tx:
        config = migrations._config()
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "0001")
        for statement in (
            "INSERT INTO jobs (id, task, state, queue, owner, created_at) VALUES"
            " ('waits', 'add', 'queued', 'default', 'ann', 1), ('ended', 'add', 'succeeded', 'default', 'ann', 1)",
            "INSERT INTO payloads (job, headers, properties, body, result)"
            " SELECT key, '{\"task\":\"add\"}', '{}', '[[],{},{}]', '3' FROM jobs",
            "INSERT INTO events (job, number, at, kind) SELECT key, 1, 1, 'submitted' FROM jobs",
            "INSERT INTO tags (tag, job) SELECT 'red', key FROM jobs",
            "INSERT INTO counts (state, queue, task, jobs) VALUES ('queued', 'default', 'add', 1)",
            "INSERT INTO count_deltas (state, queue, task, jobs) VALUES ('succeeded', 'default', 'add', 1)",
            "INSERT INTO idempotency (owner, key, fingerprint, job, created_at) VALUES ('ann', 'k', 'f', 'waits', 1)",
            "INSERT INTO tokens (id, name, digest, owner, role, created_at) VALUES ('t', 't', 'd', 'ann', 'admin', 1)",
        ):
            tx.connection.exec_driver_sql(statement)


def test_a_ledger_of_the_first_revision_is_brought_up_with_all_that_is_in_it(empty_url: str):
    ledger = Ledger(empty_url)
    fill_at_0001(ledger)

    assert migrations.upgrade(ledger) is True

    found, _ = read.page(ledger, SYSTEM, Filter(states=("queued",), tasks=("add",), tags=("red",)), None, 10)
    assert [(job.id, job.observed, job.batch) for job in found] == [("waits", False, None)]
    assert read.job(ledger, SYSTEM, "ended").result == "3"
    again = ledger.do(submit, submission(owner="ann", idempotency_key="k", fingerprint="f"))
    assert (again.id, again.replayed) == ("waits", True)
    assert [token.tasks for token in keys.all_tokens(ledger)] == [()]
    assert counted(ledger) == {("queued", "default", "add"): 1, ("succeeded", "default", "add"): 1}
    assert [claim.id for claim in take(ledger, 5)] == ["waits"]
    ledger.close()


def test_migrations_at_the_same_time_wait_for_each_other(empty_url: str):
    processes = [migrating(empty_url) for _ in range(3)]

    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [(None, 0)] * 3
    ledger = Ledger(empty_url)
    assert migrations.revision(ledger) == migrations.HEAD
    ledger.close()


@on_sqlite
def test_a_newer_database_is_refused_and_left_alone(ledger: Ledger):
    write_revision(ledger, "9999")
    before = shape(ledger)

    for act in (migrations.upgrade, migrations.check):
        with pytest.raises(LedgerVersion, match=r"revision 9999.*does not know.*newer"):
            act(ledger)
    assert (shape(ledger), migrations.revision(ledger)) == (before, "9999")


def test_an_empty_database_says_what_to_do(empty: Ledger):
    with pytest.raises(LedgerVersion, match=r"is empty\. Run `celeriac migrate`"):
        migrations.check(empty)


def test_an_older_database_says_what_to_do(ledger: Ledger, later_release: None):
    with pytest.raises(LedgerVersion, match=r"at revision 0002, this program needs 9999\. Run `celeriac migrate`"):
        migrations.check(ledger)


@on_sqlite
def test_an_older_database_is_brought_up_with_all_that_is_in_it(ledger: Ledger, later_release: None):
    id = accept(ledger)

    assert migrations.upgrade(ledger) is True

    assert migrations.revision(ledger) == "9999"
    assert select(ledger, "SELECT later FROM queues") == []
    assert kinds(ledger, id) == ["submitted"]


@on_sqlite
def test_an_older_database_is_copied_before(ledger: Ledger, later_release: None, tmp_path: Path):
    id = accept(ledger)

    copy = migrations.copy_before_upgrade(ledger)
    migrations.upgrade(ledger)

    assert copy == tmp_path / "ledger.db.before-9999"
    copied = Ledger(f"sqlite:///{copy}")
    assert migrations.revision(copied) == "0002"
    assert kinds(copied, id) == ["submitted"]
    copied.close()


@on_sqlite
def test_a_copy_is_whole_though_somebody_reads_and_writes(ledger: Ledger, later_release: None):
    with ledger.reading() as connection:
        connection.exec_driver_sql("SELECT COUNT(*) FROM jobs").all()  # holds the log back from the file
        ids = [accept(ledger) for _ in range(20)]
        copy = migrations.copy_before_upgrade(ledger)

    copied = sqlite3.connect(copy)
    found = [id for (id,) in copied.execute("SELECT id FROM jobs ORDER BY key")]
    copied.close()
    assert found == ids


def test_a_current_or_empty_database_is_not_copied(ledger: Ledger, empty: Ledger):
    assert migrations.copy_before_upgrade(ledger) is None
    assert migrations.copy_before_upgrade(empty) is None
