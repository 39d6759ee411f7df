"""Migrations: they make the schema of schema.py, keep what is there, and refuse what they do not know."""

import itertools
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import postgres
import pytest
from alembic import op
from conformance.moves import accept, counted, kinds, select, submission, take
from databases import DATABASES, on_postgres, on_sqlite
from nursery import Nursery, Process
from sqlalchemy import Column, Text, inspect
from sqlalchemy.exc import IntegrityError

from celeriac.access import SYSTEM
from celeriac.errors import LedgerVersion
from celeriac.jobs import Filter
from celeriac.ledger import Ledger, keys, migrations, read, submit
from celeriac.ledger.migrations import steps
from celeriac.ledger.schema import metadata

NUMBERS = itertools.count()
POSTGRES = DATABASES[1]
LATER = SimpleNamespace(
    __doc__="A later release adds a column, and takes another away when nobody needs it any more.",
    revision="9999",
    upgrade=lambda: op.add_column("queues", Column("later", Text())),
    contract=lambda: op.drop_column("dead_letters", "reason"),
)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger whose database has nothing in it."""
    ledger = Ledger(f"sqlite:///{tmp_path}/empty.db")
    yield ledger
    ledger.close()


@pytest.fixture
def later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this program one that knows a revision more."""
    known = steps.scripts()
    monkeypatch.setattr(steps, "scripts", lambda: [*known, LATER])
    monkeypatch.setattr(migrations, "HEAD", "9999")


def standing(ledger: Ledger) -> tuple[str | None, str | None]:
    """The oldest and the newest revision whose programs may work on it."""
    with ledger.reading() as connection:
        return migrations.standing(connection)[:2]


def columns(ledger: Ledger, table: str) -> set[str]:
    with ledger.reading() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}


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
    assert " WHERE state = 'queued'" in shape(ledger)["indexes"]["jobs_waiting"]


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
    assert steps.scripts()[-1].revision == migrations.HEAD


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


@pytest.fixture
def migrating(nursery: Nursery, tmp_path: Path) -> Callable[..., Process]:
    """`celeriac migrate` as a process of its own; what it says goes to the file `migrate.log`."""

    def start(url: str, *arguments: str, **environment: str) -> Process:
        variables = {**os.environ, "CELERIAC_DATABASE_URL": url.replace("+psycopg", ""), **environment}
        return nursery.start(["migrate", *arguments], variables, tmp_path, tmp_path / "migrate.log")

    return start


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    request.getfixturevalue("blank_postgres")
    return postgres.server().create(f"empty_{next(NUMBERS)}").replace("postgresql:", "postgresql+psycopg:")


def test_a_migration_that_is_killed_leaves_nothing_behind_and_can_be_repeated(empty_url: str, migrating, tmp_path):
    killed = migrating(empty_url, CELERIAC_FAILPOINT="before-commit")
    assert killed.wait(60) == -signal.SIGKILL
    ledger = Ledger(empty_url)
    assert migrations.revision(ledger) is None

    assert migrating(empty_url).wait(60) == 0

    assert migrations.HEAD in (tmp_path / "migrate.log").read_text()
    assert migrations.revision(ledger) == migrations.HEAD
    ledger.close()


def bring_to(ledger: Ledger, revision: str) -> None:
    """Make an empty ledger as a program of an older revision left it."""
    with ledger.transaction() as tx:
        for step in steps.pending(tx.connection, revision, finish=True):
            if step.revision <= revision:
                steps._act(tx.connection, step)
        tx.connection.exec_driver_sql("ALTER TABLE alembic_version DROP COLUMN made")


def fill(ledger: Ledger, revision: str) -> None:
    """A ledger of an older revision, with a job in each kind of place."""
    bring_to(ledger, revision)
    with ledger.transaction() as tx:
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


@pytest.fixture(params=["0001", "0002"])
def old(request: pytest.FixtureRequest, empty_url: str) -> Iterator[Ledger]:
    """A ledger as an older revision left it, with jobs in it."""
    ledger = Ledger(empty_url)
    fill(ledger, request.param)
    yield ledger
    ledger.close()


def is_whole(ledger: Ledger) -> None:
    """What was in the older ledger is there and can be worked with."""
    found, _ = read.page(ledger, SYSTEM, Filter(states=("queued",), tasks=("add",), tags=("red",)), None, 10)
    assert [(job.id, job.observed, job.batch) for job in found] == [("waits", False, None)]
    assert read.job(ledger, SYSTEM, "ended").result == "3"
    again = ledger.do(submit, submission(owner="ann", idempotency_key="k", fingerprint="f"))
    assert (again.id, again.replayed) == ("waits", True)
    assert [token.tasks for token in keys.all_tokens(ledger)] == [()]
    assert counted(ledger) == {("queued", "default", "add"): 1, ("succeeded", "default", "add"): 1}
    assert [claim.id for claim in take(ledger, 5)] == ["waits"]


@pytest.mark.parametrize("finish", [False, True])
def test_an_older_ledger_is_brought_up_with_all_that_is_in_it(old: Ledger, finish: bool):
    assert migrations.upgrade(old, finish) is True

    assert standing(old) == ("0003" if finish else "0002", "0003")
    assert migrations.upgrade(old, finish) is False
    is_whole(old)


@on_sqlite
def test_an_upgraded_database_has_exactly_the_schema_of_a_new_one(ledger: Ledger, empty: Ledger):
    fill(empty, "0002")
    migrations.upgrade(empty)
    migrations.upgrade(empty, finish=True)

    assert shape(empty) == shape(ledger)


@on_postgres
def test_an_upgraded_database_has_exactly_the_schema_of_a_new_one_on_postgres_too(ledger: Ledger):
    upgraded = Ledger(postgres.server().create("upgraded").replace("postgresql:", "postgresql+psycopg:"))
    fill(upgraded, "0002")
    migrations.upgrade(upgraded)
    migrations.upgrade(upgraded, finish=True)

    for question in CATALOGUE:
        assert select(ledger, question) == select(upgraded, question)
    upgraded.close()


@pytest.mark.parametrize("commit", [1, 2])
@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_an_upgrade_killed_at_any_commit_goes_on_where_it_was(old: Ledger, migrating, commit: int):
    ended = migrating(old.url, "--finish", CELERIAC_FAILPOINT=f"before-commit:{commit}").wait(60)
    assert ended == -signal.SIGKILL or (ended == 0 and standing(old) == ("0003", "0003"))

    assert migrating(old.url, "--finish").wait(60) == 0
    assert standing(old) == ("0003", "0003")
    is_whole(old)


@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_upgrades_of_an_older_ledger_at_the_same_time_wait_for_each_other(old: Ledger, migrating):
    processes = [migrating(old.url, "--finish") for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    is_whole(old)


@pytest.fixture
def current(empty_url: str) -> Iterator[Ledger]:
    """A ledger of this version that no other test works on."""
    ledger = Ledger(empty_url)
    migrations.upgrade(ledger)
    yield ledger
    ledger.close()


def test_what_the_revision_before_needs_stays_until_it_is_finished(current: Ledger, later_release: None):
    migrations.upgrade(current)
    assert standing(current) == ("0003", "9999")
    assert "reason" in columns(current, "dead_letters")
    migrations.check(current)

    assert migrations.upgrade(current, finish=True) is True
    assert standing(current) == ("9999", "9999")
    assert "reason" not in columns(current, "dead_letters")


def test_a_program_of_the_revision_before_works_on_what_is_not_finished(current: Ledger, later_release, monkeypatch):
    migrations.upgrade(current)
    monkeypatch.setattr(migrations, "HEAD", "0003")

    migrations.check(current)
    assert migrations.upgrade(current) is False
    id = accept(current)
    assert [job.id for job in take(current)] == [id]


def test_a_program_of_the_revision_before_is_refused_when_it_is_finished(current, later_release, monkeypatch):
    migrations.upgrade(current, finish=True)
    monkeypatch.setattr(migrations, "HEAD", "0003")

    for act in (migrations.upgrade, migrations.check):
        with pytest.raises(LedgerVersion, match=r"revision 9999.*does not know"):
            act(current)


def test_what_was_never_finished_is_when_the_revision_after_comes(current: Ledger, later_release, monkeypatch):
    migrations.upgrade(current)
    known, latest = steps.scripts(), SimpleNamespace(revision="99991", upgrade=lambda: None)
    monkeypatch.setattr(steps, "scripts", lambda: [*known, latest])
    monkeypatch.setattr(migrations, "HEAD", "99991")

    migrations.upgrade(current)

    assert standing(current) == ("9999", "99991")
    assert "reason" not in columns(current, "dead_letters")


@pytest.mark.parametrize("empty_url", [POSTGRES], indirect=True)
@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_an_index_that_a_kill_left_half_built_is_built_anew(old: Ledger):
    with old.reading() as connection, pytest.raises(IntegrityError):
        # As a kill would leave it: by its name it is there.
        connection.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY jobs_waiting ON jobs (owner)")

    migrations.upgrade(old)

    valid = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = CAST('jobs_waiting' AS regclass)"
    assert select(old, valid) == [(True, False)]
    is_whole(old)


@pytest.mark.parametrize("empty_url", [POSTGRES], indirect=True)
@pytest.mark.parametrize("old", ["0002"], indirect=True)
def test_a_step_that_has_to_wait_lets_others_pass(old: Ledger, migrating, wait_until):
    with old.transaction() as held:  # somebody works on a job, and takes his time
        held.connection.exec_driver_sql("UPDATE jobs SET cost = 1")
        process = migrating(old.url, "--finish")
        blocked = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = CAST('jobs' AS regclass)"
        building = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
        wait_until(lambda: select(old, building) or select(old, blocked), "the migration to begin")
        assert [accept_as_0002(old, number) for number in range(50)] == [None] * 50
        assert process.poll() is None

    assert process.wait(60) == 0
    assert standing(old) == ("0003", "0003")


def accept_as_0002(ledger: Ledger, number: int) -> None:
    """Write a job as a program of revision 0002 does."""
    with ledger.transaction() as tx:
        tx.connection.exec_driver_sql(
            "INSERT INTO jobs (id, task, state, queue, owner, created_at) VALUES"
            f" ('new-{number}', 'add', 'queued', 'default', 'ann', 1)"
        )


def test_migrations_of_an_empty_database_at_the_same_time_wait_for_each_other(empty_url: str, migrating):
    processes = [migrating(empty_url) for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    ledger = Ledger(empty_url)
    assert migrations.revision(ledger) == migrations.HEAD
    ledger.close()


@on_sqlite
def test_a_newer_database_is_refused_and_left_alone(ledger: Ledger):
    write_revision(ledger, "9999")
    before = shape(ledger), standing(ledger)

    for act in (migrations.upgrade, migrations.check):
        with pytest.raises(LedgerVersion, match=r"revision 9999.*does not know.*newer"):
            act(ledger)
    assert (shape(ledger), standing(ledger)) == before


def test_an_empty_database_says_what_to_do(empty: Ledger):
    with pytest.raises(LedgerVersion, match=r"is empty\. Run `celeriac migrate`"):
        migrations.check(empty)


def test_an_older_database_says_what_to_do(ledger: Ledger, later_release: None):
    with pytest.raises(LedgerVersion, match=r"at revision 0003, this program needs 9999\. Run `celeriac migrate`"):
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
    assert migrations.revision(copied) == "0003"
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
