"""Hints through Redis: a list for each queue, as kombu has it, so that other Celery programs can publish here.

What is received moves into a list of this receiver's and leaves that when it is acknowledged; lists of receivers that
show no life go back to their queues (`put_back_lost`). Unlike with kombu's transport, dying in between loses nothing.
Needs Redis 6.2. A cluster is not supported: the scripts work on several keys.
"""

import base64
import json
import os
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celeriac.broker.letters import Letter, hint, is_hint

# Who holds what: a hash "receiver queue" -> queue, a list for each of these, a sign of life for each receiver.
HOLDERS, HELD, ALIVE = "celeriac:holders", "celeriac:held:", "celeriac:alive:"
# A BLMOVE whose receiver is gone goes on in the server until its time is over. It is, before the receiver counts as
# dead and its lists are put back for good: each wait ends sooner than the sign of life that was given before it.
ALIVE_SECONDS = 10
BEAT_SECONDS = 3.0
_WAIT_SECONDS = 5
_ANSWER_SECONDS = 5.0
# kombu puts what has a priority into lists of its own.
_STEPS = tuple(f"\x06\x16{step}" for step in (3, 6, 9))
_STEPS_SECONDS = 1.0
_STEPS_MOST = 100

_PUSH = """
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
local sent = math.max(math.min(#ARGV - 1, room), 0)
for i = 2, sent + 1 do redis.call('LPUSH', KEYS[1], ARGV[i]) end
return {redis.call('LLEN', KEYS[1]), sent}
"""
_TAKE = """
local taken = {}
for i = 1, tonumber(ARGV[1]) do
  local message = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
  if not message then break end
  taken[i] = message
end
return taken
"""
_PUT_BACK = """
for i = 1, #ARGV do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then redis.call('RPUSH', KEYS[2], ARGV[i]) end
end
"""
_PUT_BACK_ALL = """
local back = 0
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do back = back + 1 end
return back
"""
_PUT_BACK_LOST = f"""
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
{_PUT_BACK_ALL}
"""


def _client(url: str) -> Any:
    return redis.Redis.from_url(
        url, socket_connect_timeout=3, socket_timeout=_ANSWER_SECONDS, socket_keepalive=True,
        socket_keepalive_options=_keepalive(), client_name="celeriac", protocol=2, retry=Retry(NoBackoff(), 0),
    )  # fmt: skip


def _keepalive() -> dict[int, int]:
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


class RedisSender:
    """A connection that sends hints; never more than the window, however many senders there are."""

    def __init__(self, url: str, window: int) -> None:
        self.sent = 0
        self._client = _client(url)
        self._window = window
        self._client.ping()

    def send(self, hints: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Send hints as far as the window allows; return how many messages then lie in each queue."""
        return self._push({queue: (self._window, bodies) for queue, bodies in hints.items()})

    def fill(self, levels: Mapping[str, int]) -> dict[str, int]:
        """Send hints until so many messages lie in each queue; return how many do."""
        return self._push({queue: (level, [hint()] * level) for queue, level in levels.items()})

    def _push(self, orders: Mapping[str, tuple[int, Sequence[bytes]]]) -> dict[str, int]:
        with self._client.pipeline(transaction=False) as pipeline:
            for queue, (bound, bodies) in orders.items():
                pipeline.eval(_PUSH, 1, queue, bound, *bodies)
            answers = pipeline.execute()
        self.sent += sum(sent for _, sent in answers)
        return {queue: depth for queue, (depth, _) in zip(orders, answers, strict=True)}

    def tidy(self) -> None:
        """Put back what dead receivers held."""
        put_back_lost(self._client)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class RedisReceiver:
    """Receives one message at a time of each queue; the next one comes when that is settled."""

    def __init__(self, url: str) -> None:
        self._client = _client(url)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}".replace(" ", "")
        self._queues: frozenset[str] = frozenset()
        self._waits: dict[str, tuple[Any, float]] = {}  # queue -> its connection and since when it waits
        self._idle: dict[str, Any] = {}  # queue -> its connection, while it does not wait
        self._unsettled: dict[str, int] = {}
        self._beat_at = self._steps_at = 0.0
        put_back_lost(self._client)

    def follow(self, queues: frozenset[str]) -> None:
        """Receive from these queues and no others."""
        if queues == self._queues:
            return
        gone, self._queues, self._beat_at = self._queues - queues, queues, 0.0
        for queue in gone:
            asked = self._waits.pop(queue, None)
            connection = asked[0] if asked else self._idle.pop(queue, None)
            if connection is not None:
                connection.disconnect()
            self._put_back_all(queue)
        self._beat()

    def receive(self, wake: int, seconds: float) -> list[Letter]:
        """Wait for messages, for something to be read from `wake`, or for the time to be over."""
        self._beat()
        letters = self._prioritised()
        for queue in self._queues - self._waits.keys():
            if not self._unsettled.get(queue):
                self._ask(queue)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        asked = {connection._sock.fileno(): queue for queue, (connection, _) in self._waits.items()}
        for descriptor in asked:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(0 if letters else seconds * 1000):
            if descriptor in asked:
                queue = asked[descriptor]
                self._idle[queue], _ = self._waits.pop(queue)
                raw = self._idle[queue].read_response()
                letters += [] if raw is None else [self._letter(queue, raw)]
        late = time.monotonic() - _WAIT_SECONDS - _ANSWER_SECONDS
        if any(since < late for _, since in self._waits.values()):
            raise redis.ConnectionError("Redis does not answer any more")
        return letters

    def more(self, queue: str, most: int) -> list[Letter]:
        """Return up to so many messages that lie in a queue."""
        return [self._letter(queue, raw) for raw in self._take(queue, queue, most)]

    def settle(self, letters: Iterable[Letter]) -> None:
        """Acknowledge messages."""
        with self._client.pipeline(transaction=False) as pipeline:
            for letter in letters:
                pipeline.lrem(self._held(letter.queue), 1, letter.mark)
                self._settled(letter.queue)
            pipeline.execute()

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Let messages be received again, by anybody."""
        for letter in letters:
            self._client.eval(_PUT_BACK, 2, self._held(letter.queue), letter.queue, letter.mark)
            self._settled(letter.queue)

    def close(self) -> None:
        """Put back what is unsettled, and close the connections."""
        with suppress(redis.RedisError, OSError):
            for connection in (*(wait for wait, _ in self._waits.values()), *self._idle.values()):
                connection.disconnect()
            self._client.expire(ALIVE + self._name, _WAIT_SECONDS + 1)
            for queue in self._queues:
                self._put_back_all(queue)
        self._client.close()

    def _ask(self, queue: str) -> None:
        connection = self._idle.pop(queue, None) or self._client.connection_pool.get_connection()
        connection.send_command("BLMOVE", queue, self._held(queue), "RIGHT", "LEFT", _WAIT_SECONDS)
        self._waits[queue] = connection, time.monotonic()

    def _prioritised(self) -> list[Letter]:
        """Return what lies in the lists of messages with a priority; looked for once a second."""
        now = time.monotonic()
        if not self._queues or now < self._steps_at:
            return []
        self._steps_at = now + _STEPS_SECONDS
        if not self._client.exists(*(queue + step for queue in self._queues for step in _STEPS)):
            return []
        return [
            self._letter(queue, raw)
            for queue in self._queues
            for step in _STEPS
            for raw in self._take(queue + step, queue, _STEPS_MOST)
        ]

    def _take(self, source: str, queue: str, most: int) -> list[bytes]:
        taken: list[bytes] = self._client.eval(_TAKE, 2, source, self._held(queue), most)
        return taken

    def _letter(self, queue: str, raw: bytes) -> Letter:
        self._unsettled[queue] = self._unsettled.get(queue, 0) + 1
        letter = letter_of(queue, raw)
        letter.mark, letter.source, letter.at = raw, self, time.monotonic()
        return letter

    def _settled(self, queue: str) -> None:
        if queue in self._unsettled:  # else it is not followed any more, and all of it was put back
            self._unsettled[queue] -= 1

    def _beat(self) -> None:
        now = time.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + BEAT_SECONDS
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(ALIVE + self._name, 1, ex=ALIVE_SECONDS)
            if self._queues:
                pipeline.hset(HOLDERS, mapping={f"{self._name} {queue}": queue for queue in self._queues})
            pipeline.execute()

    def _held(self, queue: str) -> str:
        return f"{HELD}{self._name} {queue}"

    def _put_back_all(self, queue: str) -> None:
        self._unsettled.pop(queue, None)
        self._client.eval(_PUT_BACK_ALL, 2, self._held(queue), queue)


def put_back_lost(client: Any) -> int:
    """Put back what receivers hold that show no life; return how many messages."""
    back = 0
    for holder, queue in client.hgetall(HOLDERS).items():
        name = ALIVE + holder.decode().partition(" ")[0]
        back += client.eval(_PUT_BACK_LOST, 4, HELD + holder.decode(), queue, HOLDERS, name, holder)
    return back


def letter_of(queue: str, raw: bytes) -> Letter:
    """Return a message as kombu puts it into a list (JSON); what is none keeps its bytes and has no type."""
    if is_hint(raw):
        return Letter(queue, raw)
    try:
        message = json.loads(raw)
        properties, body = message["properties"], message["body"]
        content = base64.b64decode(body) if properties.get("body_encoding") == "base64" else body.encode()
        return Letter(queue, content, str(message["content-type"]), dict(message["headers"]), properties)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Letter(queue, raw, "")
