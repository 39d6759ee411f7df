"""The pytest plugin, in a pytest of its own: fixtures by name, nothing loaded for whoever does not ask."""

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
from celeriac import Celeriac

app = Celeriac("shop")


@app.task(name="price")
def price(pieces: int) -> int:
    if pieces < 0:
        raise ValueError("fewer than none")
    return 3 * pieces
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def pytest_in(folder: Path, test: str, ini: str = "celeriac_app = shop:app") -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\npythonpath = .\nfilterwarnings = error\n")
    (folder / "test_shop.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def test_a_fixture_runs_jobs_inline(folder: Path):
    result = pytest_in(folder, """
import pytest
from shop import price

def test_price(celeriac_jobs):
    assert price.delay(2).get() == 6
    assert len(celeriac_jobs.ended) == 1

def test_each_test_begins_with_nothing(celeriac_jobs):
    celeriac_jobs.raises = True
    with pytest.raises(ValueError, match="fewer"):
        price.delay(-1)
    assert [job.state for job in celeriac_jobs.ended] == ["failed"]
""")  # fmt: skip

    assert "2 passed" in result.stdout, result.stdout


def test_an_app_of_ones_own_fixture(folder: Path):
    result = pytest_in(folder, """
import pytest
import shop

@pytest.fixture
def celeriac_app():
    return shop.app

def test_price(celeriac_jobs):
    assert shop.price.delay(2).get() == 6
""", ini="")  # fmt: skip

    assert "1 passed" in result.stdout, result.stdout


def test_a_real_instance_answers_over_http(folder: Path):
    result = pytest_in(folder, """
def test_price(celeriac_instance):
    job = celeriac_instance.submit("price", {"pieces": 5})
    assert celeriac_instance.wait(job["id"], timeout=30)["result"] == 15
""")  # fmt: skip

    assert "1 passed" in result.stdout, result.stdout
    assert result.stderr == ""


def test_an_instance_that_cannot_start_says_why(folder: Path):
    (folder / "shop.py").write_text("1 / 0")
    result = pytest_in(folder, "def test_price(celeriac_instance): ...")

    assert "ZeroDivisionError: division by zero" in result.stdout


def test_no_app_is_a_sentence(folder: Path):
    result = pytest_in(folder, "def test_price(celeriac_jobs): ...", ini="")

    assert "No app is named." in result.stdout
    assert "1 error" in result.stdout


def test_a_session_that_does_not_ask_loads_nothing(folder: Path):
    result = pytest_in(folder, """
import sys

def test_nothing_is_loaded():
    assert {"celery", "sqlalchemy", "httpx", "celeriac.app"} & set(sys.modules) == set()
""", ini="")  # fmt: skip

    assert "1 passed" in result.stdout, result.stdout
