"""The demo's page is static, brings everything along and obeys the strictest content security policy."""

import re

from celeriac.demo import PAGE

HTML = (PAGE / "index.html").read_text()
FILES = sorted(path for path in PAGE.iterdir() if path.suffix in {".css", ".html", ".js"})


def test_everything_it_loads_is_a_file_beside_it() -> None:
    loaded = re.findall(r'(?:<link[^>]+href|<script[^>]+src)="([^"]+)"', HTML)
    imported = [name for path in PAGE.glob("*.js") for name in re.findall(r'from "\./([^"]+)"', path.read_text())]
    loaded.remove("/static/icon.svg")  # the web process has it for all pages
    assert len(loaded) == 2
    for name in [*(address.removeprefix("/demo/") for address in loaded), *imported]:
        assert (PAGE / name).is_file(), name


def test_it_has_no_inline_script_or_style_and_no_foreign_address() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]+src=)|javascript:", HTML)
    for path in FILES:
        assert not re.search(r"https?://|url\(|@import", path.read_text()), path.name


def test_texts_of_people_never_become_markup() -> None:
    for path in PAGE.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()), (
            path.name
        )


def test_every_element_that_the_script_asks_for_is_there() -> None:
    ids = set(re.findall(r'\sid="([^"]+)"', HTML))
    asked = set(re.findall(r'\$\("([^"]+)"\)', (PAGE / "demo.js").read_text()))
    assert asked <= ids
