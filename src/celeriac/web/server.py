"""Running the web process: the socket, uvicorn, and an orderly end.

The socket is bound before anything starts, so that a taken port is told in one sentence and
port 0 works. On SIGTERM the process says that it is not ready and goes on serving for `drain_seconds`, so that
whoever sends it requests looks elsewhere; then whoever waits gets an answer, and the site is closed.
"""

import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from celeriac import clock
from celeriac.app import Celeriac, connect
from celeriac.errors import CannotStart
from celeriac.ledger import migrations
from celeriac.settings import Settings
from celeriac.web.app import Application, create_app
from celeriac.web.site import Site

log = logging.getLogger(__name__)

BACKLOG = 2048
SHUTDOWN_SECONDS = 3


class Server(uvicorn.Server):
    """uvicorn, with a drain before the end and the hub woken as the end begins."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site
        self._drained_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at SIGTERM, end at once at Ctrl-C or a second signal."""
        seconds = self._site.settings.drain_seconds
        if sig != signal.SIGTERM or self._drained_at is not None or not seconds:
            super().handle_exit(sig, frame)
            return
        self._site.stopping = True
        self._drained_at = clock.monotonic() + seconds
        # A connection that is kept would be closed in the end without a word, maybe under its next request.
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append((b"connection", b"close"))

    async def on_tick(self, counter: int) -> bool:
        """Say whether it is time to end; called ten times a second."""
        if self._drained_at is not None:
            self.should_exit |= clock.monotonic() >= self._drained_at
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a wish to end; uvicorn would raise them again afterwards and die of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer who waits, finish what runs, stop."""
        self._site.stopping = True
        self._site.hub.wake_all()
        await super().shutdown(sockets)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, which would take the first name of `//name/path` for a host and leave it out."""

    def on_headers_complete(self) -> None:
        """Keep the second slash as part of the path."""
        if self.url.startswith(b"//"):
            self.url = b"/%2F" + self.url[2:]
        super().on_headers_complete()


def serve(
    settings: Settings,
    app: Celeriac,
    pages: Path | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve an app until SIGTERM or SIGINT; `ready` is called with the address before the first request.

    Raises:
        CannotStart, LedgerVersion: before anything listens.
    """
    application = create_app(settings, app, pages)
    migrations.check(connect(settings))
    application.state.site.checked = True  # from here on the database may come and go
    listener = bind(settings.host, settings.port)
    address = address_of(listener, settings.host)
    log.info("Listening on %s", address)
    if ready is not None:
        ready(address)
    server(application, settings).run(sockets=[listener])


def server(application: Application, settings: Settings) -> Server:
    """Return the server of an application, not yet running."""
    config = uvicorn.Config(
        application, loop="uvloop", http=Protocol, ws="none", lifespan="on", access_log=False, server_header=False,
        log_config=None, log_level=logging.WARNING, timeout_graceful_shutdown=SHUTDOWN_SECONDS, backlog=BACKLOG,
        timeout_keep_alive=75,
    )  # fmt: skip
    return Server(config, application.state.site)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        CannotStart: naming the port and what to do.
    """
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotStart(_trouble(host, port, error)) from None


def address_of(listener: socket.socket, host: str) -> str:
    """Return the URL a bound socket is reached at."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _trouble(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another program. Stop it, or choose another port with "
            "CELERIAC_PORT or --port; 0 picks a free one."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs privileges that this user does not have. Choose one above 1023 with CELERIAC_PORT."
    return f"The address {host}:{port} cannot be used: {error.strerror}. Check CELERIAC_HOST and CELERIAC_PORT."
