"""The group: what help shows, how errors reach a person, how fast it is there."""

import subprocess
import sys

import click
import pytest

from celeriac import __version__
from celeriac.cli.group import COMMANDS
from celeriac.cli.group import celeriac as group


def test_help_names_every_command_in_its_section(celeriac):
    shown = celeriac("--help").output

    assert [shown.index(f"  {name} ") for name in COMMANDS] == sorted(shown.index(f"  {name} ") for name in COMMANDS)
    assert shown.index("Try it:") < shown.index("demo ") < shown.index("Serve an app:") < shown.index("dev ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(celeriac, name: str):
    result = celeriac(name, "--help")

    assert result.exit_code == 0
    assert "Usage: celeriac" in result.output
    assert "--help" in result.output


def test_it_tells_its_version(celeriac):
    assert celeriac("--version").output == f"celeriac {__version__}\n"


def test_an_unknown_command_is_a_usage_error(celeriac):
    result = celeriac("dmeo")

    assert result.exit_code == 2
    assert "No such command 'dmeo'" in result.stderr


def test_a_job_where_a_command_belongs_is_told_how_it_is_shown(celeriac):
    result = celeriac("jobs", "01a2-b3")

    assert result.exit_code == 2
    assert "`celeriac jobs show 01a2-b3`" in result.stderr


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from celeriac.cli.group import celeriac; celeriac(['--help'], standalone_mode=False);"
        "print(sorted({'sqlalchemy', 'celery', 'fastapi', 'pydantic', 'httpx', 'rich'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert shown.splitlines()[-1] == "[]"


def test_every_command_is_a_click_command():
    context = click.Context(group)

    assert all(isinstance(group.get_command(context, name), click.Command) for name in COMMANDS)
    assert group.get_command(context, "options") is None


def test_a_wrong_setting_is_one_sentence(celeriac, monkeypatch):
    monkeypatch.setenv("CELERIAC_PORT", "many")
    result = celeriac("migrate")

    assert result.exit_code == 2
    assert result.stderr.startswith("celeriac: Wrong settings. CELERIAC_PORT: ")
    assert result.stderr.count("\n") == 1
