"""What went wrong, told to a person at a terminal: one line on stderr and an exit code.

0 is success, 1 a failure, 2 "cannot start" or wrong usage, 3 no server to talk to. A mistake of the
caller never shows a traceback; a mistake of ours does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from celeriac.errors import CannotStart, CeleriacError, LedgerFull, LedgerUnavailable, LedgerVersion

FAILED, CANNOT_START, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


def tell(error: CeleriacError) -> None:
    """Print an error's sentence on stderr, and each fault on a line of its own."""
    # Where the sentence is nothing but the list of faults, the list alone is easier to read.
    listed = error.faults and all(fault.message in error.detail for fault in error.faults)
    click.echo(f"celeriac: {'Not valid:' if listed else error.detail}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault.path or '/'} {fault.message}", err=True)
    if error.code == "unauthorized" and (asked := getattr(error, "url", "")):
        click.echo(f"  So says {asked}. If another server or token is meant, name it with --url or --token.", err=True)
    if exit_code(error) == UNREACHABLE:
        click.echo("  Start one with `celeriac dev` or `celeriac demo`, or name one with --url.", err=True)


def exit_code(error: CeleriacError) -> int:
    """Return the exit code of an error."""
    # By their very types: a LedgerBusy, which is a LedgerUnavailable too, passes by itself.
    if isinstance(error, CannotStart) or type(error) in (LedgerFull, LedgerUnavailable, LedgerVersion):
        return CANNOT_START
    return UNREACHABLE if error.code == "unreachable" else FAILED


@contextmanager
def told() -> Iterator[None]:
    """Turn errors of ours, and Ctrl-C, into what click prints and exits with."""
    try:
        yield
    except CeleriacError as error:
        tell(error)
        raise click.exceptions.Exit(exit_code(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        click.echo(f"celeriac: {error.strerror or error}{f': {error.filename}' if error.filename else ''}.", err=True)
        raise click.exceptions.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
