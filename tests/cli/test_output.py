"""How things look: tables on narrow terminals, and nothing but text where colours are not wanted."""

import pytest

from celeriac.cli import output
from celeriac.cli.output import Column, count, table

ID = "019a7c1e-7b1c-7d30-8a55-5f2c5e0b9a11"
ROWS = [
    Column("id", [ID, ID]),
    Column("task", ["mail.send_every_newsletter", "食べ物"], drop=1, least=8),
    Column("state", ["running 45 %", "queued"], styles=["yellow", "blue"]),
    Column("queue", ["default", "large"], drop=2, least=6),
    Column("submitted", ["2026-11-21 12:40:06"] * 2, drop=3),
]


def printed(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(output, "PIPE_WIDTH", width)
    table(ROWS)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [1000, 120, 100, 80, 60])
def test_an_id_is_whole_and_no_line_is_too_long(width: int, capsys, monkeypatch):
    lines = printed(width, capsys, monkeypatch)

    assert len(lines) == 3
    assert all(line.startswith(ID) for line in lines[1:])
    assert all(output.cell_len(line) <= width for line in lines)


def test_the_least_important_columns_go_first(capsys, monkeypatch):
    headings = [printed(width, capsys, monkeypatch)[0].split() for width in (1000, 80, 60)]

    assert headings == [
        ["id", "task", "state", "queue", "submitted"], ["id", "task", "state", "queue"], ["id", "task", "state"],
    ]  # fmt: skip


def test_what_was_cut_says_so(capsys, monkeypatch):
    assert "mail.se…  running 45 %" in printed(60, capsys, monkeypatch)[1]


def test_an_id_is_whole_even_where_nothing_else_fits(capsys, monkeypatch):
    assert ID in printed(20, capsys, monkeypatch)[1]


def test_no_color_means_nothing_but_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.console().capture() as loud:
        pass
    coloured, plain = [], []
    for kept, value in ((coloured, ""), (plain, "1")):
        monkeypatch.setenv("NO_COLOR", value)
        out = output.console()
        with out.capture() as loud:
            out.print("text", style="bold dim red")
        kept.append(loud.get())

    assert "\x1b[" in coloured[0]
    assert plain == ["text\n"]


@pytest.mark.parametrize("make", [output.console, output.notes])
@pytest.mark.parametrize("text", ["copied to /tmp/a[/b]/c", "queue [red]", ":warning:"])
def test_text_is_written_as_it_is(make, text: str, capsys):
    make().print(text, style="yellow")

    assert "".join(capsys.readouterr()) == f"{text}\n"


def test_numbers_have_their_nouns():
    assert [count(number, "job") for number in (0, 1, 2000)] == ["0 jobs", "1 job", "2,000 jobs"]
