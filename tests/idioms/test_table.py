"""docs/celery.md is true: each row is tried in each configuration, and each idiom that is tried has a row."""

import re
from importlib import import_module

import pytest
from idioms import IDIOMS, Idiom
from instance import TESTS
from world import CONFIGURATIONS, World

# Each enters its idioms, in the order of the table.
for chapter in ("calling", "writing", "canvas", "results", "operating"):
    import_module(f"idioms_{chapter}")
DOCS = TESTS.parent / "docs" / "celery.md"


def rows() -> dict[str, list[str]]:
    """Return the table's rows: idiom -> what its six cells begin with."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in DOCS.read_text("utf-8").splitlines()]
    found = [line for line in lines if len(line) == 8 and re.match("yes|no", line[1])]
    return {line[0].lstrip("| "): line[1:7] for line in found}


@pytest.mark.redis
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's Redis backend, with redis-py 8
@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS)
def test_an_idiom_does_what_its_row_says(here: World, idiom: Idiom):
    idiom.instead.get((here.mode, here.pool), idiom.works)(here)


def test_the_table_has_a_row_for_each_idiom_and_no_other():
    assert list(rows()) == list(IDIOMS)


def test_each_cell_says_what_was_tried():
    assert rows() == {name: idiom.cells() for name, idiom in IDIOMS.items()}


def test_each_row_with_a_no_says_what_happens_instead():
    for line in DOCS.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 8 and "no" in cells[1:7]:
            assert len(cells[7]) > 20, line


def test_there_are_six_configurations():
    assert len(CONFIGURATIONS) == 6
