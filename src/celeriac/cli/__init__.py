"""The `celeriac` command line: one file per command, found by name, imported when it is called.

`group` lists the commands, `options` holds what several share, `output` how things look,
`supervisor/` runs `dev` and `demo`. Errors become one line on stderr and an exit code in `trouble`.
`docs/tour.md` follows one job through the files.
"""

import signal


def main() -> None:
    """Run the command in `sys.argv`; ends the process."""
    # Ctrl-C while modules load ends quietly; whoever has something to tidy up installs a handler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from celeriac.cli.group import celeriac

    celeriac(prog_name="celeriac")
