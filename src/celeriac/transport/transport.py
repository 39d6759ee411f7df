"""Transport and Channel, as kombu's virtual transports are built.

What kombu gives: exchanges, consumers, delivery to callbacks. What is ours: waiting (a
datagram socket that hears announcements), claimed jobs as messages, and the mailbox. A
message is delivered only from the reader callback of the hub, never from `on_tick`:
Celery's pool sends from an `on_tick` callback of its own and would let a job sit there.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any, Protocol

import msgspec
from kombu.transport import virtual

from celeriac import clock
from celeriac.broker import Ear, Listener, listen, wait_for_news
from celeriac.errors import LedgerFull, LedgerUnavailable
from celeriac.instance import connect
from celeriac.jobs import Claimed, Message, Submission, new_id
from celeriac.ledger import Ledger, mail, purge, submit
from celeriac.ledger.sql import as_json
from celeriac.settings import load

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
PURGE_AT_ONCE = 500


class Source(Protocol):
    """Who claims jobs for a transport: the worker node."""

    @property
    def queues(self) -> frozenset[str]:
        """The queues it claims from."""

    def fetch(self) -> None:
        """Claim what there is room for, if it is not being done already."""

    def look(self) -> None:
        """Look at the ledger for work or cancels whose announcement was lost."""

    def cancels(self) -> None:
        """Look for jobs of this node that somebody asked to cancel."""


class QoS(virtual.QoS):
    """Nothing is held back and nothing is put back: the claim decides, and the node gives back."""

    def can_consume(self) -> bool:
        """Say yes; how much a worker holds is the node's `room`."""
        return True

    def append(self, message: Any, delivery_tag: str) -> None:
        """Forget the message: its row is the record."""

    def ack(self, delivery_tag: str) -> None:
        """Do nothing: the claim was the acknowledgement."""

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Do nothing: outcomes are written by the node."""

    def restore_unacked(self) -> list[Any]:
        """Do nothing: see `append`."""
        return []


class Channel(virtual.Channel):
    """A channel whose queues are either jobs of the ledger or mailboxes."""

    QoS = QoS
    supports_fanout = True
    do_restore = False

    @property
    def ledger(self) -> Ledger:
        """The ledger behind this channel."""
        ledger: Ledger = self.connection.ledger
        return ledger

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        headers = message.get("headers") or {}
        if "task" in headers and "id" in headers:
            self.ledger.do(submit, _stranger(queue, message))
        else:
            self.ledger.do(mail.put, ([queue], json.dumps(message)))

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **_: Any) -> None:
        self.connection.tables.pop(exchange, None)  # everybody who is bound by now
        queues = [queue for _, _, queue in self.get_table(exchange)]
        if queues:
            self.ledger.do(mail.put, (queues, json.dumps(message)))

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        for _, message in mail.take(self.ledger, [queue], 1):
            taken: dict[str, Any] = json.loads(message)
            return taken
        raise Empty

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """Return what is bound to an exchange, by any process; looked up once a second."""
        now = time.monotonic()
        tables: dict[str, tuple[float, list[tuple[str, str, str]]]] = self.connection.tables
        if exchange not in tables or now - tables[exchange][0] > LOOK_SECONDS:
            tables[exchange] = now, mail.bindings(self.ledger, exchange)
        return tables[exchange][1]

    def typeof(self, exchange: str, default: str = "direct") -> Any:
        """Return the kind of an exchange. Celery publishes events without declaring theirs: its bindings tell."""
        if exchange not in self.state.exchanges and any(pattern for _, pattern, _ in self.get_table(exchange)):
            default = "topic"
        return super().typeof(exchange, default)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> Any:
        if not exchange:
            return [routing_key]
        kind = self.typeof(exchange)
        found = kind.lookup(self.get_table(exchange), exchange, routing_key, default)
        if not found and kind.type == "direct":  # a reply, for a mailbox that was made since we looked
            self.connection.tables.pop(exchange, None)
            found = kind.lookup(self.get_table(exchange), exchange, routing_key, default)
        return found

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if not self.connection.is_job_queue(queue):
            mail.bind(self.ledger, exchange, routing_key or "", pattern or "", queue)

    def _new_queue(self, queue: str, auto_delete: bool = False, **_: Any) -> None:
        if auto_delete:
            self.connection.passing.add(queue)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return True

    def _size(self, queue: str) -> int:
        return 0

    def _purge(self, queue: str) -> int:
        count = len(mail.take(self.ledger, [queue], 10_000))
        while True:
            with self.ledger.transaction() as tx:
                cancelled = purge(tx, queue, PURGE_AT_ONCE)
            count += cancelled
            if cancelled < PURGE_AT_ONCE:
                return count

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        mail.drop(self.ledger, queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:
        """Forget a mailbox."""
        self.state.queue_bindings_delete(queue)
        if not self.connection.is_job_queue(queue):
            self._delete(queue)

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> None:
        """Start listening when the first consumer appears."""
        super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        self.connection.listen().poke()


class Transport(virtual.Transport):
    """One connection of Celery's to the ledger."""

    Channel = Channel
    driver_type = "celeriac"
    driver_name = "celeriac"
    can_parse_url = True
    connection_errors = (LedgerUnavailable, LedgerFull, OSError)
    channel_errors = ()
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic", "fanout"]), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.source: Source | None = None
        self.passing: set[str] = set()  # mailboxes that end with their consumer
        self.tables: dict[str, tuple[float, list[tuple[str, str, str]]]] = {}
        self._letters: deque[tuple[str, str]] = deque()  # taken out of the ledger and not delivered yet
        self._listener: Listener | None = None
        self._loop: Any = None
        self._settings = load()

    @property
    def ledger(self) -> Ledger:
        """The ledger of the settings."""
        return connect(self._settings)

    def is_job_queue(self, queue: str) -> bool:
        """Say whether a worker node claims jobs from this queue here."""
        return self.source is not None and queue in self.source.queues

    def consumes(self, queue: str) -> bool:
        """Say whether somebody consumes this queue now; remote control may have ended it."""
        return queue in self._callbacks

    def deliver(self, job: Claimed) -> None:
        """Hand a claimed job to the consumer of its queue, as a message."""
        self._callbacks[job.queue](_message(job))

    def listen(self) -> Listener:
        """Return this connection's ear, opened on first use."""
        if self._listener is None:
            self._listener = listen(self._settings.announcements_url, Ear.WORKER)
            if self._loop is not None:
                self._loop.add_reader(self._listener.fileno(), self._hear)
        return self._listener

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Wait for mail or work without an event loop; raises TimeoutError when the time is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        listener = self.listen()
        while not self._deliver_letter():
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError
            heard = wait_for_news(listener, left)
            if self.source is None:
                listener.receive()
            elif heard:
                self._hear()
                return
            else:
                self.source.look()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Hear announcements in Celery's event loop, and look for lost ones once a second."""
        self._loop = loop
        loop.add_reader(self.listen().fileno(), self._hear)
        loop.call_repeatedly(LOOK_SECONDS, self._look)
        loop.call_soon(self._look)  # and now, so that a broker's hints come from the beginning

    def _hear(self) -> None:
        poked, queues, cancels = False, set(), False
        for news in self.listen().receive():
            queues.update(news.queues)
            cancels = cancels or bool(news.cancels)
            poked = poked or not (news.queues or news.cancels)
        if self.source is not None:
            if poked or queues & self.source.queues:
                self.source.fetch()
            if cancels:
                self.source.cancels()
        if poked or any(queue in self._callbacks and not self.is_job_queue(queue) for queue in queues):
            self._deliver_mail()

    def _look(self) -> None:
        if self.source is not None:
            self.source.look()
        self._deliver_mail()

    def _deliver_mail(self) -> None:
        while self._deliver_letter():
            pass

    def _deliver_letter(self) -> bool:
        """Deliver one letter, as a caller of `drain_events` counts on; say whether there was one."""
        if not self._letters:
            boxes = [queue for queue in self._callbacks if not self.is_job_queue(queue)]
            try:
                self._letters.extend(mail.take(self.ledger, boxes) if boxes else [])
            except (LedgerUnavailable, LedgerFull) as error:  # small talk: looked for again in a second
                log.warning("%s", error)
        if not self._letters:
            return False
        queue, message = self._letters.popleft()
        if callback := self._callbacks.get(queue):
            callback(json.loads(message))
        return True

    def close_connection(self, connection: Any) -> None:
        """Stop listening and forget the mailboxes that end with this connection."""
        super().close_connection(connection)
        if self._listener is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for queue in self.passing:
            mail.drop(self.ledger, queue)
        self.passing.clear()

    def driver_version(self) -> str:
        """Return the version shown by `celery report`."""
        return "1"


_decode: Callable[[str], Any] = msgspec.json.Decoder().decode


def _message(job: Claimed) -> dict[str, Any]:
    headers = _decode(job.message.headers)
    headers["celeriac"] = {"key": job.key}  # the node knows the rest
    properties = _decode(job.message.properties)
    properties["delivery_tag"] = job.key
    properties["delivery_info"] = {"exchange": "", "routing_key": job.queue, "redelivered": False}
    return {
        "body": job.message.body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": properties,
    }


def _stranger(queue: str, message: dict[str, Any]) -> Submission:
    """Adopt a task message that somebody published without our sender."""
    headers, properties = message["headers"], message.get("properties") or {}
    body = virtual.Channel.codecs["base64"].decode(message["body"])
    kept = {name: value for name, value in properties.items() if name in ("correlation_id", "reply_to", "priority")}
    return Submission(
        id=headers["id"] or new_id(),
        task=headers["task"],
        queue=queue,
        owner="system",
        message=Message(
            as_json({**headers, "eta": None, "expires": None}),
            as_json(kept),
            body.decode() if isinstance(body, bytes) else body,
        ),
        run_at=clock.parsed(headers.get("eta")),
        expires_at=clock.parsed(headers.get("expires")),
        root=headers.get("root_id"),
        parent=headers.get("parent_id"),
    )
