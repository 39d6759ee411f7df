"""The group of all commands, in the sections that `celeriac --help` shows.

A command's module is imported only when it is called, so that help and completion are quick.
Every error of ours is turned into a line and an exit code here, for all commands at once.
"""

import importlib
from typing import Any

import click

from celeriac.cli.trouble import told

SECTIONS = {
    "Try it": {
        "demo": "Start the demo: its tasks, two workers, a web page.",
        "init": "Write a starting point: an app of two tasks, settings.",
        "bench": "Measure this machine: submits, jobs, latency.",
    },
    "Serve an app": {
        "dev": "Run everything for one app, and reload it when its files change.",
        "web": "Run the web process: the HTTP API.",
        "worker": "Run a worker node.",
        "keeper": "Run the keeper: due jobs, rescue, retention.",
    },
    "Work with jobs": {
        "submit": "Submit a job and wait for its result, or many from a file.",
        "watch": "Follow jobs until they end.",
        "jobs": "List jobs; show, cancel and retry them.",
        "queues": "List queues; pause and resume them.",
        "workers": "List the workers.",
    },
    "Look after it": {
        "check": "Say what is wrong with the settings, the database or the app.",
        "migrate": "Bring the database to this version.",
        "backup": "Copy the ledger while everything runs, and check the copy.",
        "token": "Make, list and revoke tokens; print a login link.",
    },
}
COMMANDS = {name: help for section in SECTIONS.values() for name, help in section.items()}


class Commands(click.Group):
    """A group that imports `celeriac.cli.<name>` when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"celeriac.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), help) for name, help in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        with told():
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="celeriac", message="celeriac %(version)s")
def celeriac() -> None:
    """The job server for Celery.

    Start with `celeriac demo`; serve your own app with `celeriac dev mymodule:app`.
    """
