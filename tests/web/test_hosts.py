"""Names of hosts, as they are written in headers."""

import pytest

from celeriac.settings import load
from celeriac.web.hosts import allowed_hosts, is_loopback, is_same_site, name_of


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("localhost", "localhost"), ("LocalHost:80", "localhost"), ("a.example.", "a.example"), ("[::1]", "::1"),
        ("[::1]:8787", "::1"), ("::1", "::1"), ("", ""), ("a:b", "a:b"), (":80", ":80"), ("a:80:80", "a:80:80"),
    ],
)  # fmt: skip
def test_the_name_in_a_host_is_found(written: str, name: str):
    assert name_of(written) == name


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8787", "localhost:8787", True),
        ("http://LOCALHOST:8787", "localhost:8787", True),
        ("https://jobs.example.org", "jobs.example.org", True),
        ("https://jobs.example.org", "jobs.example.org:443", True),
        ("http://[::1]:8787", "[::1]:8787", True),
        ("http://[::1]", "[::1]", True),
        ("http://localhost:8788", "localhost:8787", False),
        ("http://localhost", "localhost:8787", False),
        ("ftp://localhost:8787", "localhost:8787", False),
        ("null", "null", False),
        ("", "", False),
    ],
)
def test_an_origin_is_ours_when_host_and_port_are(origin: str, host: str, same: bool):
    assert is_same_site(origin, host) is same


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_address_is_known_as_one(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "web", ""])
def test_an_address_that_others_reach_is_known_as_one(host: str):
    assert not is_loopback(host)


def test_named_hosts_are_added_to_the_loopback_names_or_stand_alone():
    inside = allowed_hosts(load(host="127.0.0.2", allowed_hosts=["Jobs.example.org:443"]))
    outside = allowed_hosts(load(host="10.0.0.5", allowed_hosts=["jobs.example.org"]))

    assert inside == {"127.0.0.1", "127.0.0.2", "localhost", "::1", "jobs.example.org"}
    assert outside == {"10.0.0.5", "jobs.example.org"}
