"""The documentation is complete: every command with its options, every setting with its default."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from celeriac.cli.group import celeriac
from celeriac.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"


def sections(text: str) -> dict[str, str]:
    """Heading -> the text below it, up to the next heading."""
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def defaults(text: str) -> dict[str, str]:
    """Variable without its prefix -> its default, from the rows of the tables."""
    rows = [[cell.strip().strip("`") for cell in line.split("|")] for line in text.splitlines()]
    return {
        row[1].removeprefix("CELERIAC_"): row[2] for row in rows if len(row) == 5 and row[1].startswith("CELERIAC_")
    }


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


CLI = sections((DOCS / "cli.md").read_text("utf-8"))
COMMANDS = dict(commands(celeriac, "celeriac"))
SETTINGS = defaults((DOCS / "settings.md").read_text("utf-8"))


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_and_each_of_its_options_is_documented(path: str):
    assert path in CLI, f"docs/cli.md has no heading `### {path}`"
    text = CLI[path] + CLI["Shared options"]
    options = [name for option in COMMANDS[path].params if isinstance(option, click.Option) for name in option.opts]
    long = [name for name in options if name.startswith("--")]

    assert [name for name in long if f"`{name}`" not in text] == []


def test_no_command_is_documented_that_does_not_exist():
    assert {heading for heading in CLI if heading.startswith("celeriac ")} == set(COMMANDS)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_documented_with_its_default(name: str):
    default = Settings.model_fields[name].get_default(call_default_factory=True)

    assert SETTINGS.get(name.upper(), "nothing").strip() == str(default)


def test_no_setting_is_documented_that_does_not_exist():
    read_by_clients = {"URL", "TOKEN"}

    assert {name.lower() for name in set(SETTINGS) - read_by_clients} == set(Settings.model_fields)
