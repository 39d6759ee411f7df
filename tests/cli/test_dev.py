"""The real `celeriac dev`: an app of one's own, reloaded when its file changes."""

from pathlib import Path

from cli.terminal import Terminal, run

APP = """
from celeriac import Celeriac

app = Celeriac("mine")


@app.task(name="answer", queue="deep")
def answer():
    return 1
"""


def dev(terminal, *words: str) -> Terminal:
    running = terminal("dev", "mine:app", "--port", "0", *words)
    running.shows(r"celeriac dev is ready\.")
    return running


def answered(folder: Path) -> str:
    return run(folder, "submit", "answer").stdout.strip()


def test_a_change_is_reloaded_and_a_broken_one_waits_for_the_next(terminal, tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(APP)
    running = dev(terminal)
    assert answered(tmp_path) == "1"

    file.write_text(APP.replace("return 1", "return 2").replace("deep", "deeper"))
    running.shows(r"mine\.py changed: reloading")
    running.shows(r"Ready again")
    assert answered(tmp_path) == "2"

    file.write_text("def broken(:\n")
    running.shows(r"SyntaxError: .*mine\.py:1 Waiting for the next change")
    assert run(tmp_path, "submit", "answer").returncode == 3

    file.write_text(APP.replace("return 1", "return 3"))
    running.shows(r"(?s)Waiting for the next change.*Ready again")
    assert answered(tmp_path) == "3"
    running.ctrl_c()
    assert running.end() == 0
    assert "Traceback" not in running.all


def test_an_app_that_does_not_import_is_its_error_and_place(tmp_path: Path):
    (tmp_path / "mine.py").write_text("import celeriac\n\n1 / 0\n")
    result = run(tmp_path, "dev", "mine:app", "--port", "0")

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("celeriac: The app mine cannot be imported: ZeroDivisionError")
    assert f"{tmp_path / 'mine.py'}:3" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_app_is_a_sentence(tmp_path: Path):
    result = run(tmp_path, "dev", "--port", "0")

    assert result.returncode == 2
    assert "celeriac: No app was named." in result.stderr


def test_a_file_named_like_a_library_disturbs_nothing(terminal, tmp_path: Path):
    (tmp_path / "mine.py").write_text(APP)
    (tmp_path / "celery.py").write_text("raise SystemExit('imported by mistake')\n")
    (tmp_path / "random.py").write_text("raise SystemExit('imported by mistake')\n")
    dev(terminal, "--no-reload")

    assert answered(tmp_path) == "1"
