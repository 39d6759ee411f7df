"""What the supervisor shows and keeps."""

from pathlib import Path

from celeriac.cli.supervisor import screen
from celeriac.cli.supervisor.screen import Screen


def test_lines_are_shown_with_their_process_and_kept(tmp_path: Path, capsys):
    shown = Screen(tmp_path / "logs", ["web", "keeper"])
    shown.line("web", "hello")
    shown.close()

    assert capsys.readouterr().err == "     web │ hello\n"
    assert (tmp_path / "logs" / "web.log").read_text() == "hello\n"


def test_a_line_cannot_steer_the_terminal(tmp_path: Path, capsys):
    shown = Screen(tmp_path / "logs", ["web"])
    shown.line("web", "a\tb\x1b[2Jc\x07\x9bd")
    shown.close()

    assert capsys.readouterr().err == "     web │ a\tb·[2Jc··d\n"


def test_a_log_begins_anew_only_when_it_is_long(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(screen, "ROTATE_BYTES", 10)
    log = tmp_path / "web.log"
    for text in ("short", "longer than ten", "new"):
        shown = Screen(tmp_path, ["web"])
        shown.line("web", text)
        shown.close()

    assert log.read_text() == "new\n"
    assert log.with_name("web.log.1").read_text() == "short\nlonger than ten\n"


def test_a_terminal_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch):
    shown = Screen(tmp_path, ["web"])
    gone = (tmp_path / "terminal").open("w")
    gone.close()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", gone)
        shown.line("web", "kept")
    shown.close()

    assert (tmp_path / "web.log").read_text() == "kept\n"
