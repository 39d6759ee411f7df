"""Private RabbitMQ, Redis, nginx and pgbouncer for the tests: own folders, own ports, killed at the end.

`rabbitmq()` and `redis_server()` are shared by a session and started when first asked for; `private(Redis)` and
the like are one's own. Each can be hurt: `kill`, `stop`, `pause`, `wipe`, and `start` again.
"""

import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from instance import free_port
from postgres import required

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
RABBIT = Path("/usr/lib/rabbitmq/bin")


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def needs(name: str) -> None:
    """Skip the test when a service is not installed; where services are required, fail it."""
    if (RABBIT / name).exists() if name == "rabbitmq-server" else program(name):
        return
    (pytest.fail if required() else pytest.skip)(f"{name} is not installed: make services")


class Server:
    """A process with a folder and a port, and ways to hurt it."""

    seconds = 30.0

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="celeriac-server-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Write what it reads at each start."""

    def command(self) -> list[Any]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def start(self, wait: bool = True) -> None:
        """Start it, as it was left, and wait until it answers."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=self.environment(), start_new_session=True, **self.owner(),
            )  # fmt: skip
        if wait:
            self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + self.seconds
        while not self.answers():
            assert self.process is None or self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def owner(self) -> dict[str, Any]:
        return {}

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self._signal(number)
            self.process.wait(self.seconds)
            self._signal(signal.SIGKILL)
            self.process = None

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def pause(self) -> None:
        """Let it stand still: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis(Server):
    """A Redis that writes its log at once, unless told otherwise."""

    def __init__(self, *options: str) -> None:
        needs("redis-server")
        self.options = options
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[Any]:
        return [
            program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--daemonize", "no", *self.options,
        ]  # fmt: skip

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=10)

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), contextlib.closing(self.client()) as client:
            return bool(client.ping())
        return False

    def forget(self, _queue: str) -> None:
        """Let it forget a queue: here, everything."""
        self.wipe()

    def wipe(self) -> None:
        """Let it forget everything, in the midst of its work."""
        with contextlib.closing(self.client()) as client:
            client.flushall()


class RabbitMQ(Server):
    """A RabbitMQ node with its own epmd, cookie and data. Starts in about four seconds."""

    seconds = 90.0

    def __init__(self, *lines: str) -> None:
        """`lines` are more of its configuration."""
        needs("rabbitmq-server")
        self._lines = lines
        self._distribution, self._epmd, self.management_port = free_port(), free_port(), free_port()
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        # Its own, and ours to end: the one that it would start for itself becomes a daemon.
        self._names = subprocess.Popen(
            [program("epmd"), "-port", str(self._epmd), "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **self.owner(),
        )  # fmt: skip
        super().__init__()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def prepare(self) -> None:
        (self.folder / ".erlang.cookie").write_text("private")
        (self.folder / ".erlang.cookie").chmod(0o400)
        (self.folder / "enabled_plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 10MB\nlog.console = false\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n" + "\n".join(self._lines)
        )
        if self._user:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def owner(self) -> dict[str, Any]:
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ, "HOME": folder, "RABBITMQ_NODENAME": f"celeriac{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution), "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs", "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
            "LANG": "C.UTF-8",
        }  # fmt: skip

    def command(self) -> list[Any]:
        return [RABBIT / "rabbitmq-server"]

    def answers(self) -> bool:
        """Say whether it speaks AMQP: the port is open before it does, and an alarm still lets it answer."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return len(connection.recv(7)) == 7
        return False

    def ctl(self, *arguments: str, tool: str = "rabbitmqctl", seconds: float = 60) -> str:
        """Run rabbitmqctl (or another tool of it) on this node and return what it says. Takes a second."""
        done = subprocess.run(
            [RABBIT / tool, "-q", *arguments], env=self.environment(), cwd=self.folder, timeout=seconds,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, **self.owner(),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def queues(self) -> dict[str, int]:
        """Return how many messages lie in each queue, those that are with consumers included."""
        rows = (
            line.split("\t") for line in self.ctl("list_queues", "name", "messages", "--no-table-headers").splitlines()
        )
        return {name: int(messages or 0) for name, messages in rows}

    def forget(self, queue: str) -> None:
        """Let it forget a queue, with what is in it."""
        with kombu.Connection(self.url) as connection:
            connection.default_channel.queue_delete(queue)

    def wipe(self) -> None:
        """Let it forget everything: queues, exchanges, messages. Connections end."""
        self.ctl("stop_app")
        self.ctl("reset")
        self.ctl("start_app")
        self.wait()

    def alarm(self, on: bool) -> None:
        """Raise its memory alarm, so that it takes nothing from publishers; or end it."""
        self.ctl("set_vm_memory_high_watermark", "0" if on else "0.8")

    def manage(self) -> str:
        """Switch the management API on and return its URL."""
        self.ctl("enable", "rabbitmq_management", tool="rabbitmq-plugins")
        return f"http://guest:guest@127.0.0.1:{self.management_port}/api"

    def close(self) -> None:
        super().close()
        self._names.kill()
        self._names.wait()


class Nginx(Server):
    """A load balancer in front of web processes: what one refuses or never answers, it asks the next."""

    def __init__(self, *ports: int) -> None:
        needs("nginx")
        self._ports = ports
        super().__init__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        servers = "".join(f"server 127.0.0.1:{port} max_fails=0;" for port in self._ports)
        places = "".join(
            f"{name}_temp_path {self.folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"pid {self.folder}/pid; error_log {self.folder}/errors; daemon off; worker_processes 1;"
            "events { worker_connections 512; }"
            f"http {{ access_log off; {places} upstream web {{ {servers} }}"
            f"server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://web; proxy_http_version 1.1;"
            "proxy_set_header Host $http_host; proxy_set_header Connection ''; proxy_connect_timeout 2s;"
            # A submit carries its Idempotency-Key, so that it may be asked for again elsewhere.
            "proxy_next_upstream error timeout http_503 non_idempotent; } } }"
        )

    def command(self) -> list[Any]:
        folder = str(self.folder)
        return [program("nginx"), "-p", folder, "-e", f"{folder}/errors", "-c", f"{folder}/nginx.conf"]

    def log(self) -> str:
        return super().log() + (self.folder / "errors").read_text()[-3000:]


class PgBouncer(Server):
    """A pgbouncer in transaction mode in front of a Postgres on a port."""

    def __init__(self, postgres_port: int) -> None:
        needs("pgbouncer")
        self._postgres = postgres_port
        super().__init__()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        (self.folder / "users").write_text('"postgres" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._postgres} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self.folder}/users\npool_mode = transaction\nmax_client_conn = 500\n"
            "default_pool_size = 10\nignore_startup_parameters = extra_float_digits,options\n"
        )
        if os.getuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, "nobody", "nogroup")

    def owner(self) -> dict[str, Any]:
        return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}

    def command(self) -> list[Any]:
        return [program("pgbouncer"), str(self.folder / "pgbouncer.ini")]


BROKERS: dict[str, type[Server]] = {"rabbitmq": RabbitMQ, "redis": Redis}


@functools.cache
def rabbitmq() -> RabbitMQ:
    """The RabbitMQ that all tests of a session share; tests that hurt one may, if they leave it well."""
    return _kept(RabbitMQ())


@functools.cache
def redis_server() -> Redis:
    """The Redis that all tests of a session share."""
    return _kept(Redis())


@contextlib.contextmanager
def private(make: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """Give a server of one's own: `private(Redis, "--maxmemory", "1mb")`."""
    made = make(*arguments)
    try:
        yield made
    finally:
        made.close()


_open = contextlib.ExitStack()


def _kept(made: Any) -> Any:
    _open.callback(made.close)
    return made


def close() -> None:
    """End the shared servers."""
    _open.close()
    rabbitmq.cache_clear()
    redis_server.cache_clear()
