"""The plan: values in, command lines and environment out."""

from pathlib import Path

from celeriac.cli.supervisor.plan import Node, Plan
from celeriac.cli.supervisor.supervisor import waiting_for
from celeriac.settings import Settings


def plan(**changes: object) -> Plan:
    nodes = (Node("small", ("small", "default"), 2), Node("large", (), 1))
    settings = Settings(port=9000, home=Path("there"), shutdown_seconds=7)
    return Plan(**{"command": "dev", "settings": settings, "app": "mine:app", "nodes": nodes, **changes})


def test_it_runs_web_every_node_and_the_keeper():
    words = {command.name: command.argv[3:] for command in plan().commands()}

    assert words == {
        "web": ("celeriac", "web", "mine:app"),
        "small": ("celeriac", "worker", "mine:app", "-Q", "small,default", "-c", "2", "-n", "small"),
        "large": ("celeriac", "worker", "mine:app", "-c", "1", "-n", "large"),
        "keeper": ("celeriac", "keeper"),
    }


def test_pages_go_to_web():
    web = plan(pages=Path("/pages")).commands()[0]

    assert web.argv[-2:] == ("--pages", "/pages")


def test_a_worker_gets_longer_than_its_jobs_and_only_the_keeper_stays_at_a_reload():
    commands = {command.name: command for command in plan().commands()}

    assert commands["small"].grace > 7
    assert [name for name, command in commands.items() if not command.follows] == ["keeper"]


def test_the_processes_read_the_same_settings(monkeypatch):
    for name, text in plan().environment().items():
        monkeypatch.setenv(name, text)

    assert Settings() == plan().settings.model_copy(update={"app": "mine:app"})


def test_a_stop_says_the_seconds_of_the_setting_and_what_was_typed():
    assert waiting_for(["small", "web"], plan(), interrupted=True) == (
        "Waiting for small, web: running jobs get 7 s at most. Ctrl-C again stops at once"
    )
    assert waiting_for(["web"], plan(), interrupted=False) == "Waiting for web. Ctrl-C stops at once"
