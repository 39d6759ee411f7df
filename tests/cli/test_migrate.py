"""`celeriac migrate`."""

import json
import sqlite3

from celeriac.ledger import migrations


def test_it_makes_a_database_and_then_has_nothing_to_do(celeriac, folder):
    first, second = celeriac("migrate"), celeriac("migrate")

    assert first.stdout == f"The database is now at this version ({migrations.head()}).\n"
    assert second.stdout == f"The database was already at this version ({migrations.head()}).\n"
    assert (folder / ".celeriac").stat().st_mode & 0o777 == 0o700


def test_check_changes_nothing(celeriac, folder):
    missing = celeriac("migrate", "--check")

    assert missing.exit_code == 2
    assert "There is no database at" in missing.stderr
    assert list(folder.iterdir()) == []

    celeriac("migrate")
    assert celeriac("migrate", "--check").exit_code == 0


def test_check_as_json_says_how_far_the_database_is(celeriac, folder):
    missing = celeriac("migrate", "--check", "--json")
    told = json.loads(missing.stdout)
    assert (missing.exit_code, missing.stderr, list(folder.iterdir())) == (2, "", [])
    assert (told["ok"], told["revision"], told["needed"]) == (False, None, migrations.head())
    assert "There is no database at" in told["message"]

    celeriac("migrate")
    fine = celeriac("migrate", "--check", "--json")
    assert (fine.exit_code, json.loads(fine.stdout)) == (0, {
        "ok": True, "revision": migrations.head(), "needed": migrations.head(), "finished": True, "message": None,
    })  # fmt: skip

    with sqlite3.connect(folder / ".celeriac" / "ledger.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0001', made = '0001'")
    database.close()
    old = celeriac("migrate", "--check", "--json")
    told = json.loads(old.stdout)
    assert (old.exit_code, old.stderr) == (2, "")
    assert (told["ok"], told["revision"], told["finished"]) == (False, "0001", False)
    assert "Run `celeriac migrate` first." in told["message"]


def test_what_was_done_is_told_as_json(celeriac, folder):
    first, second = (celeriac("migrate", "--json") for _ in range(2))
    standing = json.loads(celeriac("migrate", "--check", "--json").stdout)

    assert json.loads(first.stdout) == {**standing, "changed": True, "copy": None}
    assert json.loads(second.stdout) == {**standing, "changed": False, "copy": None}
    assert first.stderr == second.stderr == ""


def test_a_database_of_a_newer_version_is_left_alone(celeriac, folder):
    celeriac("migrate")
    with sqlite3.connect(folder / ".celeriac" / "ledger.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    result = celeriac("migrate")

    assert result.exit_code == 2
    assert result.stderr.startswith("celeriac: The database is at revision 9999, which this version")


def test_a_home_that_cannot_be_made_is_a_sentence(celeriac, folder):
    (folder / "file").write_text("")
    result = celeriac("migrate", "--home", "file/home")

    assert result.exit_code == 2
    assert result.stderr.startswith("celeriac: The folder file/home cannot be used: Not a directory.")
