"""Hosts: the names this server answers to, so that a foreign page cannot reach it under a name of its own.

DNS rebinding points a stranger's domain at 127.0.0.1; the browser then treats our answers as
the stranger's. The Host header still tells the name, and unknown names are refused. Pure.
"""

from ipaddress import ip_address

from celeriac.errors import CannotStart
from celeriac.settings import LOOPBACK, Settings

_PORTS = {"http": "80", "https": "443"}


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the names to answer to, without ports.

    Raises:
        CannotStart: when others could reach the server and nobody said under which name.
    """
    named = {name_of(host) for host in settings.allowed_hosts}
    if is_loopback(settings.host):
        return frozenset(named | {*LOOPBACK, settings.host})
    if not named:
        raise CannotStart(
            f"The server would listen on {settings.host}, where others can reach it. Say by which names it is called, "
            'as in CELERIAC_ALLOWED_HOSTS=["jobs.example.org"], or leave CELERIAC_HOST at 127.0.0.1.'
        )
    return frozenset(named | {name_of(settings.host)})


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach the address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """Return the name in a Host header or an authority: lower case, no port, no brackets, no final dot."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    if name and ":" not in name and port.isdecimal():
        host = name
    return host.rstrip(".")


def is_same_site(origin: str, host: str) -> bool:
    """Say whether an Origin header names the very host, port included, that the request was sent to.

    The scheme is the origin's: behind a proxy that ends TLS the request itself knows only http.
    """
    scheme, separator, authority = origin.partition("://")
    if not separator or scheme not in _PORTS:
        return False
    return _authority(authority, scheme) == _authority(host, scheme)


def _authority(host: str, scheme: str) -> tuple[str, str]:
    port = "" if host.endswith("]") else host.rpartition(":")[2]
    return name_of(host), port if port.isdecimal() else _PORTS[scheme]
