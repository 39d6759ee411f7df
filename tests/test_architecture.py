"""The architecture as a test: who may import whom, where each library lives, how a module opens, how long things get.

The checker takes a tree as data (path below `celeriac/` -> source) and returns the violations as sentences; so each
rule has mutants here: a module with one violation planted, which the checker must name.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "celeriac"

# From the ground up: a part imports only from lines above its own; parts on one line are strangers.
RANKS = """
errors clock failpoints previews
states
jobs settings routing access
ledger broker files current
instance
limits transport webhooks
app
worker keeper stream client deploy
web
contrib testing demo
cli
"""
RANK = {part: rank for rank, line in enumerate(RANKS.strip().splitlines()) for part in line.split()}
ROOT_RANK = RANK["app"]  # `from celeriac import Celeriac` runs the root, which exports the app

STRANGERS = [("web.api", "web.console"), ("ledger", "broker")]

CELERY_HOMES = ["app", "broker", "transport", "worker", "contrib", "keeper.beat"]
LIBRARY_HOMES = {
    "sqlalchemy": ["ledger"],
    "alembic": ["ledger"],
    "celery": CELERY_HOMES,
    "kombu": CELERY_HOMES,
    "billiard": CELERY_HOMES,
    "vine": CELERY_HOMES,
    "amqp": ["broker"],
    "redis": ["broker"],
    "fastapi": ["web"],
    "starlette": ["web"],
    "uvicorn": ["cli", "web"],
    "jinja2": ["web", "deploy"],
    "click": ["cli"],
    "rich": ["cli"],
    "httpx": ["client"],
}

EMPTY_WORDS = {"utils", "common", "core", "services", "helpers", "managers", "base"}
HEADER_LINES = range(2, 9)
FILE_LINES = 400
FUNCTION_LINES = 60

Tree = dict[str, str]


def violations(tree: Tree) -> list[str]:
    """All broken rules of a tree, one sentence each."""
    return [f"{path}: {told}" for path in sorted(tree) for told in module_violations(path, tree[path])]


def module_violations(path: str, source: str) -> Iterator[str]:
    module = module_name(path)
    code = ast.parse(source)
    yield from name_violations(path)
    if not path.startswith("ledger/migrations/versions/"):  # a schema written out in full is one long list
        yield from size_violations(source, code)
    yield from header_violations(path, code)
    if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(code)):
        yield "imports are absolute: from celeriac.part import name"
    if module not in ("", "__main__"):
        if part(module) not in RANK:
            yield f"the part {part(module)} has no rank; give it one in DESIGN section 5 and here"
        else:
            for target in imports(code):
                yield from import_violations(module, target)


def import_violations(module: str, target: str) -> Iterator[str]:
    """What is wrong with `module` (below celeriac) importing the dotted name `target`."""
    if not within(target, "celeriac"):
        homes = LIBRARY_HOMES.get(part(target))
        if homes is not None and not any(within(module, home) for home in homes):
            yield f"{part(target)} lives in {', '.join(homes)} only"
        return
    target = target.removeprefix("celeriac").removeprefix(".")
    mine, theirs = part(module), part(target)
    if theirs != mine and RANK.get(theirs, ROOT_RANK) >= RANK[mine]:
        yield f"{mine} may not import {target or 'the root of the package'}, which is not below it"
    for one, other in [*STRANGERS, *(pair[::-1] for pair in STRANGERS)]:
        if within(module, one) and within(target, other):
            yield f"{one} and {other} are strangers"


def imports(code: ast.Module) -> Iterator[str]:
    """Every dotted name imported anywhere: in functions and below TYPE_CHECKING too."""
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_violations(path: str) -> Iterator[str]:
    for word in path.removesuffix(".py").split("/"):
        if word.strip("_") in EMPTY_WORDS:
            yield f"{word} says nothing; name it by its noun"


def size_violations(source: str, code: ast.Module) -> Iterator[str]:
    if len(source.splitlines()) > FILE_LINES:
        yield f"longer than {FILE_LINES} lines; look for the missing noun"
    for node in ast.walk(code):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            first, last = (body[0].lineno, body[-1].end_lineno or 0) if body else (1, 0)
            if last - first + 1 + (node.body[0].lineno - node.lineno) > FUNCTION_LINES:
                yield f"{node.name} is longer than {FUNCTION_LINES} lines"


def header_violations(path: str, code: ast.Module) -> Iterator[str]:
    if path.endswith("__init__.py") and not code.body:
        return  # an empty one only makes the folder a package
    lines = [line for line in (ast.get_docstring(code) or "").splitlines() if line.strip()]
    if len(lines) not in HEADER_LINES:
        yield f"opens with {len(lines)} lines of docstring instead of {HEADER_LINES[0]} to {HEADER_LINES[-1]}"


def module_name(path: str) -> str:
    """The dotted name below celeriac; the root itself is empty."""
    return path.removesuffix(".py").replace("/", ".").removesuffix("__init__").removesuffix(".")


def part(dotted: str) -> str:
    return dotted.partition(".")[0]


def within(dotted: str, home: str) -> bool:
    return dotted == home or dotted.startswith(f"{home}.")


def test_the_package_obeys_its_architecture():
    files = PACKAGE.rglob("*.py")
    tree = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in files}

    assert "\n".join(violations(tree)) == ""


HEADER = '"""What it is.\n\nWho calls it.\n"""\n'
LONG_FUNCTION = "def long():\n" + "    x = 1\n" * 60

MUTANTS = [
    # ranks
    ("states.py", "from celeriac.ledger import write", "not below it"),
    ("states.py", "import celeriac.ledger.write", "not below it"),
    ("states.py", "from celeriac import ledger", "not below it"),
    ("jobs.py", "from celeriac.settings import Settings", "not below it"),
    ("worker/planted.py", "from celeriac.keeper import loop", "not below it"),
    ("contrib/planted.py", "from celeriac.demo import app", "not below it"),
    ("web/planted.py", "from celeriac.cli import main", "not below it"),
    ("ledger/planted.py", "def late():\n    from celeriac.app import Celeriac", "not below it"),
    ("ledger/planted.py", "if TYPE_CHECKING:\n    from celeriac.app import Celeriac", "not below it"),
    ("ledger/planted.py", "from celeriac import Celeriac", "not below it"),
    ("ledger/planted.py", "import celeriac", "not below it"),
    ("ledger/planted.py", "from celeriac.nowhere import x", "not below it"),
    ("nowhere/planted.py", "", "has no rank"),
    # strangers
    ("ledger/planted.py", "from celeriac.broker import publisher", "ledger and broker are strangers"),
    ("broker/planted.py", "from celeriac.ledger.write import submit", "broker and ledger are strangers"),
    ("web/api/planted.py", "from celeriac.web.console import jobs", "web.api and web.console are strangers"),
    ("web/console/planted.py", "from celeriac.web import api", "web.console and web.api are strangers"),
    # libraries
    ("keeper/planted.py", "import celery.beat", "celery lives in"),
    ("demo/planted.py", "from celery import shared_task", "celery lives in"),
    ("ledger/planted.py", "from kombu import Exchange", "kombu lives in"),
    ("cli/planted.py", "def late():\n    import billiard", "billiard lives in"),
    ("web/planted.py", "from vine import promise", "vine lives in"),
    ("web/planted.py", "from sqlalchemy import select", "sqlalchemy lives in ledger only"),
    ("worker/planted.py", "import redis", "redis lives in broker only"),
    ("keeper/planted.py", "from amqp import Connection", "amqp lives in broker only"),
    ("cli/planted.py", "from alembic import command", "alembic lives in ledger only"),
    ("access/planted.py", "from fastapi import Depends", "fastapi lives in web only"),
    ("stream/planted.py", "from starlette.responses import Response", "starlette lives in web only"),
    ("demo/planted.py", "import uvicorn", "uvicorn lives in cli, web only"),
    ("cli/planted.py", "import jinja2", "jinja2 lives in web, deploy only"),
    ("deploy/planted.py", "import click", "click lives in cli only"),
    ("keeper/planted.py", "from rich.table import Table", "rich lives in cli only"),
    ("webhooks/planted.py", "import httpx", "httpx lives in client only"),
    # form
    ("web/planted.py", "from . import app", "imports are absolute"),
    ("web/planted.py", LONG_FUNCTION, "long is longer than 60 lines"),
    ("web/planted.py", "x = 1\n" * 400, "longer than 400 lines"),
    ("web/utils.py", "", "utils says nothing"),
    ("web/helpers/planted.py", "", "helpers says nothing"),
    ("web/_base.py", "", "_base says nothing"),
]


@pytest.mark.parametrize(("path", "source", "told"), MUTANTS)
def test_a_planted_violation_is_named(path: str, source: str, told: str):
    assert told in "\n".join(violations({path: HEADER + source}))


@pytest.mark.parametrize("header", ["", '"""One line."""', '"""' + "Line.\n" * 9 + '"""', "x = 1"])
def test_a_module_without_a_proper_header_is_named(header: str):
    assert "lines of docstring" in "\n".join(violations({"web/planted.py": header}))


LAWFUL = [
    ("__init__.py", "from celeriac.app import Celeriac, attach\nfrom celeriac import current"),
    ("__main__.py", "from celeriac.cli import main"),
    ("ledger/planted.py", "import sqlalchemy\nfrom celeriac import errors\nfrom celeriac.ledger.schema import jobs"),
    ("keeper/beat.py", "from celery.beat import Scheduler"),
    ("demo/planted.py", "from celeriac import Celeriac, current"),
    ("web/app.py", "from celeriac.web import api, console\nimport fastapi, uvicorn"),
    ("cli/dev.py", "import click, rich, uvicorn\nfrom celeriac.demo.app import app"),
    ("web/planted.py", 'def long():\n    """' + "Line.\n" * 60 + '    """\n' + "    x = 1\n" * 59),
]


@pytest.mark.parametrize(("path", "source"), LAWFUL)
def test_what_is_lawful_is_not_named(path: str, source: str):
    assert violations({path: HEADER + source}) == []


def test_an_empty_package_file_needs_no_header():
    assert violations({"web/__init__.py": ""}) == []
