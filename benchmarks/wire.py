"""HTTP as the benchmarks speak it: raw sockets, keep-alive, no pipelining, the same for every server.

`Client` is one patient client; `load.py` is many at once. A server that closes a connection
after its answer (gunicorn's sync workers do) is asked again on a new one.
"""

import json
import socket
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes
    last: bool  # whether the server closes the connection after it

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


def request(method: str, path: str, body: object = None, token: str = "") -> bytes:
    """Return the bytes of a request; a body is sent as JSON."""
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


def parse(buffer: bytes) -> Answer | None:
    """Return the answer at the start of a buffer, or None while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"An answer without Content-Length: {buffer[:200]!r}")
    length = int(head[at + 17 : at + 30].split(b"\r", 1)[0])
    if len(buffer) < end + 4 + length:
        return None
    return Answer(int(buffer[9:12]), buffer[end + 4 : end + 4 + length], b"\r\nconnection: close" in head)


def connect(port: int) -> socket.socket:
    """Return a connection to a server on this machine."""
    made = socket.create_connection(("127.0.0.1", port), timeout=60)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Client:
    """One client: a request, its answer, the next request."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port = port
        self._token = token
        self._socket: socket.socket | None = None

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request and return its answer; raises OSError when the server is not there."""
        return self.send(request(method, path, body, self._token))

    def send(self, data: bytes) -> Answer:
        """Send a request's bytes and return its answer."""
        if self._socket is None:
            self._socket = connect(self._port)
        try:
            self._socket.sendall(data)
            buffer = b""
            while (answer := parse(buffer)) is None:
                part = self._socket.recv(262144)
                if not part:
                    raise ConnectionResetError("The server closed the connection before it had answered.")
                buffer += part
        except OSError:
            self.close()
            raise
        if answer.last:
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
