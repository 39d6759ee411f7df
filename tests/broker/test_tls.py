"""Brokers by TLS: their certificate is looked at, and what is said is as without."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import redis
import servers
from instance import free_port, until

from broker.conftest import BROKERS
from broker.test_carriers import jobs, received
from celeriac.broker import receiver, sender_to
from celeriac.broker.letters import hint
from celeriac.broker.rabbitmq_facts import RabbitFacts, rabbit_facts
from celeriac.broker.redis_facts import RedisFacts, redis_facts
from celeriac.errors import CannotStart


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """A folder with a certificate for this machine that nobody has signed, and its key; RabbitMQ may read it."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-server-"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=BROKERS)
def url(request: pytest.FixtureRequest, certificate: Path) -> Iterator[str]:
    """A broker's URL for TLS, without what says whose certificates are believed."""
    port, cert, key = free_port(), certificate / "cert.pem", certificate / "key.pem"
    if request.param == "redis":
        with servers.private(
            servers.Redis, "--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key),
            "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no",
        ):  # fmt: skip
            yield f"rediss://127.0.0.1:{port}/0"
    else:
        with servers.private(
            servers.RabbitMQ, f"listeners.ssl.1 = 127.0.0.1:{port}", f"ssl_options.certfile = {cert}",
            f"ssl_options.keyfile = {key}", f"ssl_options.cacertfile = {cert}",
        ):  # fmt: skip
            until(partial(listens, port), "the port for TLS")
            yield f"amqps://guest:guest@127.0.0.1:{port}//"


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def believing(url: str, certificate: Path) -> str:
    return f"{url}?{'cacertfile' if url.startswith('amqps') else 'ssl_ca_certs'}={certificate / 'cert.pem'}"


def test_hints_go_by_tls(url: str, certificate: Path):
    url, queue = believing(url, certificate), f"q{os.urandom(6).hex()}"
    with closing(sender_to(url, 10)()) as sender, closing(receiver(url)) as one:
        one.follow(frozenset({queue}))
        sender.send({queue: [hint("a")]})

        assert jobs(received(one)) == ["a"]


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_none_is_looked_at(url: str):
    with pytest.raises((OSError, redis.RedisError), match=r"(?i)certificate verify failed"):
        sender_to(url, 10)()

    unlooked = "verify=verify_none" if url.startswith("amqps") else "ssl_cert_reqs=none"
    sender_to(f"{url}?{unlooked}", 10)().close()


def test_what_asks_a_broker_about_itself_says_what_is_wrong_with_its_certificate(url: str, certificate: Path):
    with pytest.raises(CannotStart, match="certificate verify failed"):
        facts(url)

    facts(believing(url, certificate))


def facts(url: str) -> RabbitFacts | RedisFacts:
    return rabbit_facts(url, [], "") if url.startswith("amqps") else redis_facts(url, [])
