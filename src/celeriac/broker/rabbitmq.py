"""Hints through RabbitMQ: durable quorum queues of the same names as ours, on the default exchange.

A queue that exists already is used as it is. Hints are confirmed in batches. A receiver has at most one message
of a queue unsettled unless it asks for more; RabbitMQ gives back what a lost connection has not acknowledged.
"""

import logging
import os
import select
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import amqp
from amqp.exceptions import AMQPError, ChannelError, NotFound, PreconditionFailed

from celeriac.broker.consumer import QueueRefused
from celeriac.broker.letters import Letter, hint

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10
_ANSWER_SECONDS = 5.0
# How long a depth that was asked for is believed; and how soon it is asked for again when it allowed too little.
_DEPTH_SECONDS, _AGAIN_SECONDS = 1.0, 0.02
# What one process sends of the room there seems to be: several that look at the same time stay within the window.
_SHARE = 4


def connect(url: str, heartbeat: float) -> amqp.Connection:
    """Return an open connection; the library's own errors tell what prevents it."""
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    secured = _secured(parse_qs(parts.query), parts.hostname) if parts.scheme == "amqps" else False
    connection = amqp.Connection(
        host=f"{host}:{parts.port or (5671 if secured else 5672)}",
        userid=unquote(parts.username or "guest"), password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/", ssl=secured, heartbeat=heartbeat, login_method="PLAIN",
        connect_timeout=3, read_timeout=_ANSWER_SECONDS, write_timeout=_ANSWER_SECONDS,
        # Without connection.blocked, which costs a look at the socket with each message: no confirmation tells as much.
        client_properties={"connection_name": "celeriac", "capabilities": {"consumer_cancel_notify": True}},
    )  # fmt: skip
    try:
        connection.connect()
    except BaseException:
        connection.collect()
        raise
    return connection


def _secured(query: dict[str, list[str]], host: str | None) -> dict[str, Any]:
    """Return TLS as RabbitMQ's own clients spell it in a URL: `?cacertfile=…`, `?verify=verify_none`."""
    if query.get("verify") == ["verify_none"]:
        return {"cert_reqs": ssl.CERT_NONE}
    return {
        "server_hostname": host, "cert_reqs": ssl.CERT_REQUIRED, "ca_certs": query.get("cacertfile", [None])[0],
    }  # fmt: skip


def _declare(connection: amqp.Connection, queue: str) -> None:
    """Make a queue, unless there is one; an error closes the channel, so it has one of its own."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
    except PreconditionFailed:
        log.warning("The queue %s is there already and is no quorum queue; it is used as it is.", queue)
        return
    channel.close()


def close(connection: amqp.Connection) -> None:
    """Close a connection, whatever state it is in."""
    try:
        connection.close()
    except (AMQPError, OSError):
        connection.collect()


class RabbitSender:
    """A connection that sends hints and waits for their confirmations."""

    def __init__(self, url: str, window: int) -> None:
        self.sent = 0
        self._connection = connect(url, heartbeat=0)
        self._window = window
        self._room: dict[str, int] = {}
        self._depths: dict[str, int] = {}
        self._looked_at: dict[str, float] = {}
        self._told: set[str] = set()  # queues that are refused
        self._number, self._unconfirmed = 0, set[int]()
        self._asking, self._channel = self._connection.channel(), self._connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._confirmed)
        self._channel.events["basic_nack"].add(self._confirmed)  # refused: the queue is at a limit of its own

    def send(self, hints: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Send hints as far as the window allows; return how many messages then lie in each queue, about."""
        for queue, bodies in hints.items():
            self._look(queue)
            self._publish(queue, bodies[: max(self._room[queue], 0)])
        self._confirm()
        return {queue: self._depths[queue] for queue in hints}

    def fill(self, levels: Mapping[str, int]) -> dict[str, int]:
        """Send hints until so many messages lie in each queue; return how many do."""
        for queue, level in levels.items():
            if not level:  # somebody only wants to know, which makes no queue
                self._depths[queue] = self._depth(queue, make=False)
                continue
            self._look(queue, anew=True)
            self._publish(queue, [hint()] * (level - self._depths[queue]))
        self._confirm()
        return {queue: self._depths[queue] for queue in levels}

    def tidy(self) -> None:
        """Nothing: RabbitMQ gives back by itself what dead receivers held."""

    def close(self) -> None:
        """Close the connection."""
        close(self._connection)

    def _look(self, queue: str, anew: bool = False) -> None:
        now, looked_at = time.monotonic(), self._looked_at.get(queue, 0.0)
        old = _DEPTH_SECONDS if self._room.get(queue) else _AGAIN_SECONDS
        if anew or now - looked_at > old:
            self._depths[queue] = depth = self._depth(queue)
            self._room[queue] = -(-max(self._window - depth, 0) // _SHARE)
            self._looked_at[queue] = now

    def _depth(self, queue: str, make: bool = True) -> int:
        try:
            return int(self._asking.queue_declare(queue, passive=True).message_count)
        except ChannelError as error:  # which closes the channel
            self._asking = self._connection.channel()
            if not isinstance(error, NotFound):
                return self._refused(queue, error)
        if not make:
            return 0
        try:
            _declare(self._connection, queue)
        except ChannelError as error:
            return self._refused(queue, error)
        return 0

    def _refused(self, queue: str, error: ChannelError) -> int:
        """Count a queue as full that is locked by somebody, or forbidden to us, and tell of it once."""
        if queue not in self._told:
            self._told.add(queue)
            log.warning("No hints are sent to the queue %s; its work is found in the ledger: %s", queue, error)
        return self._window

    def _publish(self, queue: str, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            self._channel.basic_publish(amqp.Message(body, content_type="application/json"), "", queue)
            self._number += 1
            self._unconfirmed.add(self._number)
        self.sent += len(bodies)
        self._room[queue] -= len(bodies)
        self._depths[queue] += len(bodies)

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {number for number in self._unconfirmed if number > tag}
        else:
            self._unconfirmed.discard(tag)

    def _confirm(self) -> None:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._unconfirmed:
            self._connection.drain_events(timeout=max(deadline - time.monotonic(), 0.001))


class RabbitReceiver:
    """Receives one message at a time of each queue; the next one comes when that is settled."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url, HEARTBEAT_SECONDS)
        self._tags: dict[str, str] = {}
        self._arrived: list[Letter] = []
        self._channel = self._connection.channel()
        self._channel.basic_qos(0, 1, False)

    def follow(self, queues: frozenset[str]) -> None:
        """Receive from these queues and no others. Raises QueueRefused."""
        for queue in self._tags.keys() - queues:
            self._channel.basic_cancel(self._tags.pop(queue))
        for queue in queues - self._tags.keys():
            tag = os.urandom(8).hex()
            try:
                _declare(self._connection, queue)
                self._channel.basic_consume(queue, tag, callback=partial(self._take, queue))
            except (AMQPError, TimeoutError) as error:  # locked by somebody, forbidden to us, or broken
                raise QueueRefused(queue, error, isinstance(error, ChannelError)) from error
            self._tags[queue] = tag

    def receive(self, wake: int, seconds: float) -> list[Letter]:
        """Wait for messages, for something to be read from `wake`, or for the time to be over."""
        self._connection.heartbeat_tick()
        sock = self._connection.sock
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(wake, select.POLLIN)
        here = poll.poll(0 if self._arrived or self._pending() else seconds * 1000)
        while self._pending() or any(descriptor == sock.fileno() for descriptor, _ in here):
            self._connection.blocking_read(_ANSWER_SECONDS)  # a frame: drain_events waits for more behind a heartbeat
            here = poll.poll(0)
        letters, self._arrived = self._arrived, []
        return letters

    def more(self, queue: str, most: int) -> list[Letter]:
        """Return up to so many messages that lie in a queue."""
        letters: list[Letter] = []
        while len(letters) < most and (message := self._channel.basic_get(queue)) is not None:
            letters.append(self._letter(queue, message))
        return letters

    def settle(self, letters: Iterable[Letter]) -> None:
        """Acknowledge messages."""
        for letter in letters:
            self._channel.basic_ack(letter.mark)

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Let messages be received again, by anybody."""
        for letter in letters:
            self._channel.basic_reject(letter.mark, requeue=True)

    def close(self) -> None:
        """Close the connection: what is unsettled goes back."""
        close(self._connection)

    def _pending(self) -> bool:
        pending = getattr(self._connection.sock, "pending", None)  # TLS may have read what poll then does not see
        return bool(pending and pending())

    def _take(self, queue: str, message: Any) -> None:
        self._arrived.append(self._letter(queue, message))

    def _letter(self, queue: str, message: Any) -> Letter:
        properties = message.properties
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
        return Letter(
            queue, body, properties.get("content_type", ""), properties.get("application_headers") or {}, properties,
            message.delivery_info["delivery_tag"], self, time.monotonic(),
        )  # fmt: skip
