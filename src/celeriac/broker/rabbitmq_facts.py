"""What a RabbitMQ says of itself, for `celeriac check`: over AMQP, and more from its management API where that answers.

Changes nothing: queues are looked at, and one of its own that nobody else sees shows whether messages pass.
Called by cli/checks/rabbitmq.py, for our own broker and for that of an observed app.
"""

import base64
import json
import os
import time
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import amqp
from amqp.exceptions import AccessRefused, AMQPError, NotFound, PreconditionFailed, ResourceLocked

from celeriac.broker import shown, unusable
from celeriac.broker.publisher import as_line
from celeriac.broker.rabbitmq import close, connect
from celeriac.settings import LOOPBACK

_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class RabbitFacts:
    """`nodes`, `queues` and `policies` are the management API's lists; `hidden` says why it has not answered."""

    version: str
    kinds: dict[str, str]  # queue -> quorum, classic, missing, refused, or what is different about it
    refused: str | None  # what it did not allow
    confirms: bool  # whether it takes messages now
    seconds: float  # how long an answer takes
    user: str
    near: bool  # whether it is on this machine
    nodes: list[dict[str, Any]] | None = None
    queues: list[dict[str, Any]] = field(default_factory=list)
    policies: list[dict[str, Any]] = field(default_factory=list)
    hidden: str = ""


def rabbit_facts(url: str, queues: Collection[str], management: str = "") -> RabbitFacts:
    """Ask a server. Raises CannotStart."""
    parts = urlsplit(url)
    virtual_host, user = unquote(parts.path[1:]) or "/", unquote(parts.username or "guest")
    try:
        connection = connect(url, 0)
    except (AMQPError, OSError) as error:
        raise unusable(url, error) from None
    try:
        version = str(connection.server_properties.get("version", ""))
        kinds = {queue: _kind(connection, queue) for queue in queues}
        began = time.monotonic()
        connection.channel().close()
        seconds = time.monotonic() - began
        refused, confirms = _tried(connection)
        close(connection) if confirms else connection.collect()  # under an alarm it does not hear that we go
    except (AMQPError, OSError) as error:
        connection.collect()
        raise unusable(url, error) from None
    near = (parts.hostname or LOOPBACK[0]) in LOOPBACK
    told = (version, kinds, refused, confirms, seconds, user, near)
    api = management or _management(url)
    home = quote(virtual_host, safe="")
    try:
        nodes, found = _ask(api, url, "/nodes"), _ask(api, url, f"/queues/{home}")
        return RabbitFacts(*told, nodes, found, _ask(api, url, f"/policies/{home}"))
    except (OSError, HTTPException, ValueError) as error:
        return RabbitFacts(*told, hidden=f"the management API at {shown(api)} does not answer: {as_line(error)}")


def _kind(connection: amqp.Connection, queue: str) -> str:
    """Say of which type a queue is. Only one that is there is declared, which then changes nothing."""
    try:
        connection.channel().queue_declare(queue, passive=True)
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        channel.close()
    except NotFound:
        return "missing"
    except (AccessRefused, ResourceLocked) as error:
        return f"refused: {error.reply_text}"
    except PreconditionFailed as error:
        text = str(error.reply_text)
        return "classic" if "'x-queue-type'" in text or "'durable'" in text else text
    return "quorum"


def _tried(connection: amqp.Connection) -> tuple[str | None, bool]:
    """Send a message to a queue of this connection's alone; return what was refused, and whether it was confirmed."""
    channel, queue = connection.channel(), f"celeriac-check-{os.urandom(4).hex()}"
    confirmed: list[int] = []
    try:
        channel.queue_declare(queue, exclusive=True, auto_delete=True)
        channel.confirm_select()
        channel.events["basic_ack"].add(lambda tag, multiple: confirmed.append(tag))
        channel.basic_publish(amqp.Message(b"{}"), "", queue)
        deadline = time.monotonic() + _SECONDS
        while not confirmed and (left := deadline - time.monotonic()) > 0:
            connection.drain_events(timeout=left)
        channel.basic_get(queue, no_ack=True)
        channel.queue_delete(queue)
    except AccessRefused as error:
        return str(error.reply_text), True
    except TimeoutError:
        return None, bool(confirmed)
    return None, True


def _management(url: str) -> str:
    """Return where the management API of a broker is by default."""
    parts = urlsplit(url)
    scheme, port = ("https", 15671) if parts.scheme == "amqps" else ("http", 15672)
    host = parts.hostname or "127.0.0.1"
    return urlunsplit((scheme, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "/api", "", ""))


def _ask(api: str, url: str, path: str) -> list[dict[str, Any]]:
    own, broker = urlsplit(api), urlsplit(url)
    who = own if own.username else broker
    secret = f"{unquote(who.username or 'guest')}:{unquote(who.password or 'guest')}"
    bare = urlunsplit((own.scheme, own.netloc.rpartition("@")[2], own.path.rstrip("/"), "", ""))
    headers = {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever a proxy is for, not for this
    with straight.open(urllib.request.Request(bare + path, headers=headers), timeout=_SECONDS) as answer:
        told = json.load(answer)
    if not isinstance(told, list):
        raise ValueError("it is not RabbitMQ's")
    return told
