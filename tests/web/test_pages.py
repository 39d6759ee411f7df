"""The front page, its files, the documentation, and the documents about the API."""

import html
import re
import shlex
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from celeriac import Celeriac
from celeriac.web.openapi import TOLD
from celeriac.web.permissions import PERMISSIONS
from web.house import JSON, House, house

DOCS = Path(__file__).parent.parent.parent / "docs" / "http.md"
API = [place for place in PERMISSIONS if place[1].startswith("/api/v1")]


class Near(BaseModel):
    street: str
    numbers: Annotated[list[float], Field(min_length=1)]


@pytest.fixture
def demo(blank_sqlite: Path, tmp_path: Path) -> Iterator[House]:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text('<script src="/demo/page.js"></script>')
    (pages / "page.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    with house(blank_sqlite, tmp_path / "home", pages=pages) as made:
        yield made


def test_without_pages_the_front_page_says_where_to_go(shared: House):
    response = shared.client(role=None).get("/")

    assert response.status_code == 200
    assert all(text in response.text for text in ("/docs", "curl", f"{shared.url}/api/v1/jobs"))


def test_a_folder_of_pages_is_served_without_a_login(demo: House):
    client = demo.client(role=None)

    assert client.get("/").text == '<script src="/demo/page.js"></script>'
    script = client.get("/demo/page.js")
    assert (script.text, script.headers["Cache-Control"]) == ("1", "no-cache")
    assert client.get("/demo/page.js", headers={"If-None-Match": script.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    "path", ["/demo/nothing.js", "/demo/../secret.txt", "/demo/%2e%2e/secret.txt", "/demo//etc/passwd", "/demo/"]
)
def test_nothing_beside_the_folder_is_served(demo: House, path: str):
    response = demo.client(role=None).get(path)

    assert (response.status_code, response.json()["code"]) == (404, "not-found")


def test_no_page_needs_anything_from_elsewhere_or_breaks_the_policy(shared: House):
    for path in ("/", "/docs", "/login"):
        text = shared.client(role=None).get(path).text
        assert re.findall(r'(?:src|href)="(?!/|#)[^"]*"', text) == []
        assert not re.search(r"<script|<style| style=| on\w+=", text)


def test_the_example_of_the_front_page_is_one_that_works(blank_sqlite: Path, tmp_path: Path):
    app = Celeriac("sampled")

    @app.task(name="it's")
    def needing(text: str, near: Near, count: Annotated[int, Field(ge=5)], kind: Literal["a"], on: date | None) -> None:
        """Need arguments of many kinds."""

    with house(blank_sqlite, tmp_path / "home", app=app) as made:
        text = html.unescape(made.client(role=None).get("/").text)
        [body] = re.findall(r"-d (.*)</code>", text)
        response = made.client().post("/api/v1/jobs", content=shlex.split(body)[0], headers=JSON)
        assert str(tmp_path / "home" / "token") in text

    assert (response.status_code, response.json()["task"]) == (202, "it's"), response.text


def test_where_the_token_is_is_told_only_where_this_machine_alone_can_ask(blank_sqlite: Path, tmp_path: Path):
    with house(blank_sqlite, tmp_path / "home", allowed_hosts=["jobs.example.org", "127.0.0.1"]) as made:
        texts = [made.client(role=None).get(path).text for path in ("/", "/docs")]

    assert all(".celeriac/token" in text and str(tmp_path) not in text for text in texts)


def test_routes_of_tasks_are_folded_and_the_others_are_not(shared: House):
    folds = re.findall(r"<details( open)?>\s*<summary><h2>.*?<code>([^<]*)<", shared.client().get("/docs").text, re.S)

    assert {path: bool(open) for open, path in folds if path.endswith("/jobs")} == {
        "/api/v1/jobs": True,
        "/api/v1/tasks/{task}/jobs": True,
        **{f"/api/v1/tasks/{name}/jobs": False for name in ("add", "echo", "limited", "listed", "measured")},
    }


# What is told about the API


def test_every_route_of_the_api_is_in_the_openapi_document(shared: House):
    document = shared.client(role=None).get("/openapi.json").json()
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert listed == set(API) == {(method, f"/api/v1{path}") for method, path in TOLD}


def test_every_reference_of_the_openapi_document_leads_somewhere(shared: House):
    response = shared.client(role=None).get("/openapi.json")
    names = set(re.findall(r'"#/components/schemas/(\w+)"', response.text))

    assert names <= set(response.json()["components"]["schemas"])
    assert {"Job", "JobBody", "JobPage", "Problem"} <= names


def test_every_route_is_on_the_page_of_documentation_with_an_example(shared: House):
    text = shared.client(role=None).get("/docs").text

    for _, path in API:
        assert f"<code>{path}</code>" in text
    assert text.count("curl -H") == len(API)


@pytest.mark.parametrize("place", PERMISSIONS, ids=" ".join)
def test_every_route_is_documented(place: tuple[str, str]):
    method, path = place
    told = DOCS.read_text("utf-8")

    assert f"`{method} {path.removeprefix('/api/v1')}`" in told


@pytest.mark.parametrize("place", API, ids=" ".join)
def test_every_route_of_the_api_has_an_example(place: tuple[str, str]):
    method, path = place
    commands = re.findall(r"^curl (?:.*\\\n)*.*$", DOCS.read_text("utf-8"), re.MULTILINE)
    address = re.compile(re.sub(r"\\{\w+\\}", r"\\$?[\\w.]+", re.escape(f"$CELERIAC{path}")) + r"""(?=["'?\s]|$)""")

    assert [command for command in commands if address.search(command) and method_of(command) == method]


def method_of(command: str) -> str:
    named = re.search(r"-X (\w+)", command)
    return named[1] if named else "POST" if " -d " in command else "GET"


def test_every_state_kind_and_code_of_an_error_is_documented():
    from celeriac import errors
    from celeriac.jobs import ErrorCode, Kind
    from celeriac.states import State

    told = DOCS.read_text("utf-8")
    seen = {*State, *Kind, *ErrorCode} | {error.code for error in vars(errors).values() if is_answer(error)}

    assert [word for word in sorted(seen) if f"`{word}`" not in told] == []


def is_answer(error: object) -> bool:
    """Whether an error is one that HTTP may answer with, and not one of starting, of a worker or of `.delay()`."""
    from celeriac.errors import (
        CannotStart,
        CeleriacError,
        JobsNeverEnd,
        JobWaits,
        LedgerVersion,
        Unroutable,
    )

    private = (CannotStart, CeleriacError, JobsNeverEnd, JobWaits, LedgerVersion, Unroutable)
    return isinstance(error, type) and issubclass(error, CeleriacError) and error not in private
