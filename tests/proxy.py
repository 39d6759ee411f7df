"""A TCP proxy with toxics, to be put between our processes and Postgres, RabbitMQ or Redis.

Toxics are attributes, changed at any time while connections are open; `heal` takes them all back. It runs in one
thread of the test's own process. After the toxics of Toxiproxy, whose program is not needed.
"""

import asyncio
import contextlib
import ctypes
import random
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from instance import free_port

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
CHUNK = 65_536


class Proxy:
    """Stands in front of a port of this host. `port` is its own."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = free_port()
        self.latency = 0.0  # seconds that each piece takes longer
        self.jitter = 0.0  # and up to so many more
        self.slice = 0  # so many bytes at a time, each in a packet of its own
        self.rate = 0.0  # bytes a second
        self.cut_after: int | None = None  # so many more bytes, in both directions together; then a reset
        self.connections = 0  # that were ever made
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None
        self._half_open = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.up()

    def before(self, url: str) -> str:
        """Return a URL that leads here instead."""
        parts = urlsplit(url)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))

    def up(self) -> None:
        """Take connections (again)."""
        if self._server is None:
            self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", self.port))

    def down(self) -> None:
        """Refuse connections, and reset those there are."""
        server, self._server = self._server, None
        if server is not None:
            self._loop.call_soon_threadsafe(server.close)
        self.reset()

    def reset(self) -> None:
        """Reset every connection."""
        self._run(self._reset())

    def half_open(self, on: bool = True) -> None:
        """Let every packet vanish, both ways, without a word: connections stay and nothing is ever acknowledged."""
        self._half_open = on
        self._run(self._filter())

    def heal(self) -> None:
        """Be a mere wire again."""
        self.latency = self.jitter = self.rate = 0.0
        self.slice, self.cut_after = 0, None
        self.up()
        if self._half_open:
            self.half_open(False)

    def close(self) -> None:
        self.down()
        self._run(asyncio.sleep(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            _abort(writer)
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        for stream in pair:
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, up_writer), (up_reader, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(pumps, timeout=0.2)
        for pump in pumps:
            pump.cancel()
        self._pairs.discard(pair)
        for stream in pair:
            stream.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                for piece in self._pieces(data):
                    await self._delay(len(piece))
                    writer.write(piece)
                    await writer.drain()
                    await self._count(len(piece))
            if writer.can_write_eof():
                writer.write_eof()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        size = self.slice or len(data)
        if self.cut_after is not None:
            size = max(1, min(size, self.cut_after))
        return (data[start : start + size] for start in range(0, len(data), size))

    async def _delay(self, size: int) -> None:
        seconds = self.latency + random.uniform(0, self.jitter) + (size / self.rate if self.rate else 0)
        if seconds or self.slice:
            await asyncio.sleep(seconds)

    async def _count(self, size: int) -> None:
        if self.cut_after is not None:
            self.cut_after -= size
            if self.cut_after <= 0:
                self.cut_after = None
                await self._reset()

    async def _reset(self) -> None:
        for pair in list(self._pairs):
            for stream in pair:
                _abort(stream)

    async def _filter(self) -> None:
        """Have the kernel drop what comes for these sockets, so that even its own acknowledgements stay out."""
        listening = self._server.sockets if self._server else ()
        streams = [stream.get_extra_info("socket") for pair in self._pairs for stream in pair]
        for each in (*listening, *streams):
            with contextlib.suppress(OSError), each.dup() as handle:  # one that has just ended needs no filter
                if self._half_open:
                    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
                    handle.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))
                else:
                    handle.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _abort(stream: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.transport.abort()


@contextlib.contextmanager
def proxy(upstream: int) -> Iterator[Proxy]:
    """Give a proxy in front of a port of this host."""
    made = Proxy(upstream)
    try:
        yield made
    finally:
        made.close()
