"""`celeriac check`: finds what is wrong and changes nothing."""

import json

import pytest


def findings(result) -> dict[str, tuple[str, str]]:
    return {found["about"]: (found["level"], found["message"]) for found in json.loads(result.stdout)["findings"]}


def test_an_empty_folder_gets_warnings_and_stays_empty(celeriac, folder):
    result = celeriac("check", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    assert {about: level for about, (level, _) in findings(result).items()} == {
        "settings": "fine", "home": "warning", "database": "warning", "app": "warning",
    }  # fmt: skip
    assert list(folder.iterdir()) == []


def test_all_is_well(celeriac):
    celeriac("migrate")
    result = celeriac("check", "celeriac.demo.tasks:app")

    assert result.exit_code == 0
    assert [line[0] for line in result.stdout.splitlines()] == ["✓"] * 4
    assert "crunch, divide, echo, lcs, sleep" in result.stdout
    assert "Next: celeriac dev" in result.stderr


def test_an_app_that_does_not_import_is_an_error_with_its_place(celeriac, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "broken_for_check.py").write_text("from celeriac import Celeriac\n\n1 / 0\n")
    result = celeriac("check", "broken_for_check:app", "--json")
    level, message = findings(result)["app"]

    assert result.exit_code == 1
    assert level == "error"
    assert "ZeroDivisionError: division by zero" in message
    assert "broken_for_check.py:3" in message


def test_errors_come_last_where_the_eye_is(celeriac):
    result = celeriac("check", "no.such.app")

    assert [line[0] for line in result.stdout.splitlines()] == ["✓", "!", "!", "✗"]
    assert result.exit_code == 1


@pytest.mark.parametrize(("port", "code"), [("8787", 0), ("x", 1)])
def test_wrong_settings_are_an_error(celeriac, monkeypatch, port: str, code: int):
    monkeypatch.setenv("CELERIAC_PORT", port)

    assert celeriac("check").exit_code == code


def test_a_home_that_is_a_file_is_an_error(celeriac, folder):
    (folder / "home").write_text("")
    result = celeriac("check", "--home", "home")

    assert result.exit_code in (1, 2)
    assert "home" in result.output


def test_an_open_home_is_a_warning(celeriac, folder):
    (folder / ".celeriac").mkdir(mode=0o755)

    assert findings(celeriac("check", "--json"))["home"][0] == "warning"
