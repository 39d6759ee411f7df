"""Errors as a person at a terminal sees them."""

import click
import pytest

from celeriac.cli.trouble import exit_code, told
from celeriac.errors import (
    CannotStart,
    CeleriacError,
    Fault,
    InvalidArguments,
    JobNotFound,
    LedgerUnavailable,
    LedgerVersion,
)


def exit_of(error: BaseException) -> int:
    with pytest.raises(click.exceptions.Exit) as caught, told():
        raise error
    return caught.value.exit_code


def test_a_sentence_goes_to_stderr(capsys):
    assert exit_of(JobNotFound("7f3c")) == 1
    told_ = capsys.readouterr()
    assert told_.err == "celeriac: There is no job '7f3c'. It may have been pruned, or belong to somebody else.\n"
    assert told_.out == ""


def test_faults_stand_on_lines_of_their_own(capsys):
    exit_of(InvalidArguments.of([Fault("/args/a", "is missing"), Fault("/args/b", "is one too many")]))

    assert capsys.readouterr().err == "celeriac: Not valid:\n  /args/a is missing\n  /args/b is one too many\n"


def test_a_sentence_that_says_more_than_its_faults_is_kept(capsys):
    exit_of(InvalidArguments("There is no task 'x'.", [Fault("/task", "is not a known task")]))

    assert capsys.readouterr().err == "celeriac: There is no task 'x'.\n  /task is not a known task\n"


def test_exit_codes_tell_why():
    class Unreachable(CeleriacError):
        code = "unreachable"

    assert [exit_code(kind("no")) for kind in (CannotStart, LedgerUnavailable, LedgerVersion)] == [2, 2, 2]
    assert exit_code(Unreachable("no")) == 3
    assert exit_code(JobNotFound("x")) == 1
    assert exit_of(KeyboardInterrupt()) == 130


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError), told():
        raise ZeroDivisionError
