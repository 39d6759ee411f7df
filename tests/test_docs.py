"""The documentation is complete and true: what exists is in it, what is in it exists, and its examples run."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from celeriac.cli.group import celeriac
from celeriac.jobs import ErrorCode, Kind
from celeriac.settings import Settings
from celeriac.states import State
from celeriac.web.permissions import PERMISSIONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
PACKAGE = ROOT / "src" / "celeriac"


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text("utf-8")


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


CLI = sections(page("cli"))
COMMANDS = dict(commands(celeriac, "celeriac"))
SETTINGS = defaults(page("settings"))


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_and_each_of_its_options_is_documented(path: str):
    assert path in CLI, f"docs/cli.md has no heading `### {path}`"
    text = CLI[path] + CLI["Shared options"]
    options = [name for option in COMMANDS[path].params if isinstance(option, click.Option) for name in option.opts]
    long = [name for name in options if name.startswith("--")]

    assert [name for name in long if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", [path for path in COMMANDS if not isinstance(COMMANDS[path], click.Group)])
def test_each_command_has_an_example(path: str):
    assert f"    {path}" in CLI[path]


def test_no_command_is_documented_that_does_not_exist():
    assert {heading for heading in CLI if heading.startswith("celeriac ")} == set(COMMANDS)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_documented_with_its_default(name: str):
    default = Settings.model_fields[name].get_default(call_default_factory=True)

    assert SETTINGS.get(name.upper(), "nothing").strip() == str(default)


def test_no_setting_is_documented_that_does_not_exist():
    read_by_clients = {"URL", "TOKEN"}

    assert {name.lower() for name in set(SETTINGS) - read_by_clients} == set(Settings.model_fields)


@pytest.mark.parametrize(("method", "path"), PERMISSIONS)
def test_each_route_is_documented(method: str, path: str):
    assert f"`{method} {path.removeprefix('/api/v1')}`" in page("http")


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_of_event_is_documented(kind: Kind):
    assert f"| `{kind}` |" in page("concepts")


@pytest.mark.parametrize("word", [*State, *ErrorCode])
def test_each_state_and_each_reason_is_documented(word: str):
    assert f"`{word}`" in page("concepts")


def test_each_page_is_in_the_navigation():
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)

    assert sorted(nav) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize(("name", "below"), [("README.md", "docs/"), ("docs/index.md", "")])
def test_each_page_is_found_from_the_first(name: str, below: str):
    text = (ROOT / name).read_text("utf-8")
    pages = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path.name != "index.md"]

    assert [str(path) for path in pages if f"]({below}{path})" not in text] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_somewhere(path: Path):
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", path.read_text("utf-8"))
    targets = [(one or other).partition("#")[0] for one, other in links]
    local = [target for target in targets if target and "://" not in target]

    assert [target for target in local if not (path.parent / target).exists()] == []


# The tour and the guarantees name files, and what is in them


def names_in(path: Path) -> set[str]:
    """Every name that a Python file defines, at any depth, and every attribute it sets."""
    code = ast.walk(ast.parse(path.read_text("utf-8")))
    defined: set[str] = set()
    for node in code:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
    return defined


ALL_NAMES = {name for path in PACKAGE.rglob("*.py") for name in names_in(path)}
# `path.py` (`Name`, `Class.method`), as the tour writes it
PLACES = re.findall(r"`([\w/]+(?:\.py|/))`(?:\s+\(((?:`[\w.]+`(?:, )?)+)\))?", page("tour"))


@pytest.mark.parametrize(("path", "names"), PLACES)
def test_what_the_tour_points_at_is_there(path: str, names: str):
    place = ROOT / path if path.startswith("tests/") else PACKAGE / path
    assert place.exists(), path
    found = names_in(place) if place.is_file() else {name for file in place.rglob("*.py") for name in names_in(file)}

    assert [name for name in re.findall(r"`([\w.]+)`", names) if name.rpartition(".")[2] not in found] == []


def test_every_name_on_the_tour_exists():
    bare = set(re.findall(r"`([A-Z]\w+(?:\.\w+)?)`", page("tour"))) - {"MOVES"}

    assert sorted(name for name in bare if not {*name.split(".")} <= ALL_NAMES) == []


def test_the_tour_leads_through_every_part():
    parts = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert sorted(part for part in parts if f"`{part}/" not in page("tour")) == []
    assert [part for part in parts if "docs/tour.md" not in (PACKAGE / part / "__init__.py").read_text()] == []


ROWS = re.findall(r"^\| `(tests/\S+\.py)` \| (.+) \|$", page("guarantees"), re.MULTILINE)


@pytest.mark.parametrize(("file", "tests"), ROWS)
def test_the_tests_that_prove_a_guarantee_exist(file: str, tests: str):
    named = re.findall(r"`(test_\w+)`", tests)

    assert named
    assert sorted(set(named) - names_in(ROOT / file)) == []


CASES = [line.split("|")[1:-1] for line in page("guarantees").splitlines() if re.match(r"\| \*\*[FC]\d", line)]


def test_every_case_that_is_made_to_happen_has_a_result_and_says_what_shows_it():
    numbers = re.findall(r"[FC]\d\d", " ".join(cells[0] for cells in CASES))
    spans = re.findall(r"C(\d\d) – C(\d\d)", " ".join(cells[0] for cells in CASES))
    ranges = {f"C{number:02}" for one, other in spans for number in range(int(one), int(other))}

    assert {*numbers, *ranges} == {f"F{n:02}" for n in range(1, 47)} | {f"C{n:02}" for n in range(1, 37)}
    assert [cells for cells in CASES if not all(cell.strip() for cell in cells) or "unknown" in "".join(cells)] == []


def test_the_tests_and_runs_that_the_cases_name_exist():
    from faults.trouble import TROUBLES

    shown = " ".join(cells[-1] for cells in CASES)
    tests = {name for path in (ROOT / "tests").rglob("test_*.py") for name in names_in(path)}
    known = {name for kind in TROUBLES.values() for name in kind}

    assert sorted(set(re.findall(r"`(test_\w+)`", shown)) - tests) == []
    assert sorted(set(re.findall(r"`run: (.+?)`", shown)) - known) == []


def test_each_guarantee_names_its_tests():
    promises = {heading: text for heading, text in sections(page("guarantees")).items() if heading != "Platforms"}

    assert [heading for heading, text in promises.items() if "Shown by" not in text] == ["Guarantees"]


def test_the_tests_that_the_readme_names_exist():
    rows = re.findall(r"\| `(tests/\S+\.py)`: (.+) \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    named = [(file, name) for file, names in rows for name in re.findall(r"`(test_\w+?)_?…?`", names)]

    assert len(named) > 5
    assert [
        (file, name) for file, name in named if not any(one.startswith(name) for one in names_in(ROOT / file))
    ] == []


# Platforms

LINUX_ONLY = (
    "/proc/",
    "prctl",
    "SO_PEERCRED",
    "epoll(",
    "eventfd",
    "inotify",
    "memfd",
    "sched_getaffinity",
    "O_TMPFILE",
)


IF_IT_IS_THERE = {"worker/evidence.py: /proc/"}


def test_nothing_is_used_that_only_linux_has():
    found = {
        f"{path.relative_to(PACKAGE)}: {word}"
        for path in PACKAGE.rglob("*.py")
        for word in LINUX_ONLY
        if word in path.read_text("utf-8")
    }

    assert found == IF_IT_IS_THERE


# Examples


def files_of(text: str) -> dict[str, str]:
    """The files that a page writes: blocks that say ```python file=name."""
    return dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def test_the_examples_of_the_testing_page_pass(tmp_path: Path):
    files = files_of(page("testing"))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--noconftest"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)

    assert result.returncode == 0, result.stdout
    assert f"{sum(text.count('def test_') for text in files.values())} passed" in result.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_python_is_python(path: Path):
    for block in re.findall(r"^```python.*?\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        ast.parse(block)


@pytest.mark.parametrize(("name", "tasks"), [("README", ["render"]), ("docs/getting-started", ["bind", "render"])])
def test_the_app_of_the_first_steps_is_one(name: str, tasks: list[str], tmp_path: Path):
    block = re.search(r"^```python\n(.*?)^```$", (ROOT / f"{name}.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    (tmp_path / "jobs.py").write_text(block[1])
    command = [sys.executable, "-P", "-m", "celeriac", "check", "jobs:app"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert f"jobs:app has {len(tasks)} tasks: {', '.join(tasks)}" in checked.stdout
