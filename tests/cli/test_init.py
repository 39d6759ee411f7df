"""`celeriac init`: what it writes is clean, runs, and never takes the place of what is there."""

import subprocess
import sys
from pathlib import Path

from cli.terminal import json_of, run


def test_it_names_what_it_wrote_and_the_next_command(celeriac, folder: Path):
    result = celeriac("init")

    assert {path.name for path in folder.iterdir()} == {"tasks.py", "celeriac.toml", ".gitignore"}
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["tasks.py", "celeriac.toml", ".gitignore"]
    assert "Next: celeriac dev tasks:app" in result.stderr


def test_what_is_there_stays(celeriac, folder: Path):
    (folder / "tasks.py").write_text("mine")
    (folder / ".gitignore").write_text("*.pyc")
    celeriac("init")
    once = (folder / ".gitignore").read_text()
    celeriac("init")

    assert (folder / "tasks.py").read_text() == "mine"
    assert once.splitlines() == ["*.pyc", ".celeriac/", "__pycache__/"]
    assert (folder / ".gitignore").read_text() == once


def test_a_folder_is_made(celeriac, folder: Path):
    assert "cd shop && celeriac dev tasks:app" in celeriac("init", "shop").stderr
    assert (folder / "shop" / "tasks.py").exists()


def test_what_it_wrote_passes_the_linter_and_the_check(celeriac, folder: Path):
    celeriac("init")
    for words in (("check", "--select", "E,F,W,I,B,UP"), ("format", "--check")):
        linted = subprocess.run([sys.executable, "-m", "ruff", *words, "--no-cache", "."], cwd=folder)
        assert linted.returncode == 0
    checked = run(folder, "check", "--json")

    [report] = json_of(checked.stdout)
    assert report["ok"], report
    assert "tasks:app has 2 tasks: bake, count_words" in checked.stdout


def test_what_it_wrote_runs(celeriac, folder: Path, terminal):
    celeriac("init")
    terminal("dev", "--port", "0", "--no-reload").shows(r"is ready\.")

    assert '"be": 2' in run(folder, "submit", "count_words", "text=to be or not to be").stdout
    assert run(folder, "submit", "bake", "loaves=2").stdout == "2 loaves\n"
