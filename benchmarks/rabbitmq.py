"""A private RabbitMQ node for benchmarks: own folder, own ports, defaults otherwise."""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import Process, free_port, stopping, until

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


@contextlib.contextmanager
def server() -> Iterator[tuple[str, Process]]:
    """Give the URL of a node and its process, and end it."""
    if not os.path.exists(SERVER):
        raise SystemExit("This benchmark needs rabbitmq-server: run `make services`, or install it.")
    with tempfile.TemporaryDirectory(prefix="rabbitmq-bench-", ignore_cleanup_errors=True) as name, stopping([]) as all:
        folder, port, names, distribution = Path(name), free_port(), free_port(), free_port()
        (folder / ".erlang.cookie").write_text("private")
        (folder / ".erlang.cookie").chmod(0o400)
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 10MB\n")
        user: tuple[str, ...] = ()
        if os.getuid() == 0:
            user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "nobody", "nogroup")
        environment = {
            "HOME": name, "RABBITMQ_NODENAME": f"bench{port}@localhost", "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(names), "RABBITMQ_MNESIA_BASE": f"{name}/mnesia", "RABBITMQ_LOG_BASE": f"{name}/logs",
            "RABBITMQ_CONFIG_FILE": f"{name}/rabbitmq", "RABBITMQ_ENABLED_PLUGINS_FILE": f"{name}/plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null", "LANG": "C.UTF-8",
        }  # fmt: skip
        # Its own, and ours to end: the one that a node would start for itself becomes a daemon.
        all.append(Process("epmd", [*user, "epmd", "-port", str(names), "-address", "127.0.0.1"], folder, environment))
        node = Process("rabbitmq", [*user, SERVER], folder, environment)
        all.append(node)
        until(lambda: _answers(port), "RabbitMQ", 120)
        yield f"amqp://guest:guest@127.0.0.1:{port}//", node


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.settimeout(5)
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return len(connection.recv(7)) == 7
    return False
