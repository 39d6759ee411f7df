"""Taking a home and a port."""

import os
import socket

import pytest

from celeriac.cli.supervisor.home import free_port, running, taken, url_of
from celeriac.errors import CannotStart
from celeriac.settings import Settings


@pytest.fixture
def settings(folder):
    return Settings(home=folder / "home", port=0)


def test_a_home_is_taken_by_one_at_a_time(settings):
    with taken(settings, "demo") as first:
        assert first.port > 0
        with pytest.raises(CannotStart) as refused, taken(settings, "dev"):
            pass
        sentence = str(refused.value)
        assert f"`celeriac demo` (process {os.getpid()}, port {first.port}) runs on the folder" in sentence
        assert running(settings.home).url == f"http://127.0.0.1:{first.port}"

    assert running(settings.home) is None
    with taken(settings, "dev"):
        pass


def test_one_that_fails_leaves_no_address_for_clients_to_find(settings):
    with pytest.raises(CannotStart), taken(settings, "dev"):
        raise CannotStart("There is no such app.")

    assert (settings.home / "lock").read_text() == ""


def test_nobody_runs_on_a_folder_that_is_not_there(folder):
    assert running(folder / "nowhere") is None


def test_a_taken_port_is_named_with_one_that_is_free():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"Port {port} of 127.0.0.1 is taken .* `celeriac demo --port \d+`"):
            free_port(Settings(port=port), "demo")


def test_a_host_that_is_not_ours_is_named():
    with pytest.raises(CannotStart, match=r"cannot listen on '192\.0\.2\.1'"):
        free_port(Settings(host="192.0.2.1", port=0), "demo")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_the_address_is_one_a_browser_can_open(host: str, url: str):
    assert url_of(Settings(host=host, port=80)) == url
