"""`celeriac workers`: the worker nodes, what they work on, and how much.

Whether one is online is the keeper's judgement, not a ping; that it is stuck it says itself.
"""

from typing import Any

import click

from celeriac.cli.options import Server, json_option, server_options
from celeriac.cli.output import Column, local, notes, print_json, suggest, table


@click.command("workers")
@click.option("--all", "everyone", is_flag=True, help="Also those that have stopped or were lost.")
@json_option
@server_options
def command(server: Server, everyone: bool, as_json: bool) -> None:
    """List the workers that are online."""
    workers = [worker for worker in server.client().workers() if everyone or worker["online"]]
    if as_json:
        for worker in workers:
            print_json(worker)
        return
    _show(workers)
    suggest("celeriac queues" if workers else "celeriac worker APP")


def _show(workers: list[dict[str, Any]]) -> None:
    if not workers:
        notes().print("No workers are online.")
        return
    states = [_state(worker) for worker in workers]
    styles = {"online": "green", "stuck": "red", "gone": "bright_black"}
    table([
        Column("worker", [worker["name"] for worker in workers], least=12),
        Column("state", states, styles=[styles[state] for state in states]),
        Column("running", [f"{worker['running']} of {worker['concurrency']}" for worker in workers]),
        Column("pool", [worker["pool"] for worker in workers], 2),
        Column("queues", [", ".join(worker["queues"]) for worker in workers], 1, least=8),
        Column("since", [local(worker["started_at"]) for worker in workers], 3),
    ])  # fmt: skip


def _state(worker: dict[str, Any]) -> str:
    if not worker["online"]:
        return "gone"
    return "stuck" if worker.get("stuck") else "online"
