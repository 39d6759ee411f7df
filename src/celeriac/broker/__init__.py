"""What carries: announcements between the processes of an instance, and hints through RabbitMQ or Redis.

Nothing in this part writes a row; losing anything it carries costs time, never work. `listen` and
`announcer` choose the way that fits the ledger's URL, `sender_to` and `receiver` the one that fits the broker's.
`docs/tour.md` follows one job through the files.
"""

import select
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from urllib.parse import urlsplit

from celeriac.broker.announcements import Announcer, Ear, Listener, News
from celeriac.broker.consumer import Consumer, Receiver
from celeriac.broker.publisher import Publisher, Sender, as_line
from celeriac.errors import CannotStart

__all__ = [
    "Announcer", "Consumer", "Ear", "Listener", "News", "Publisher", "Receiver", "Sender", "announcer", "check_package",
    "listen", "receiver", "sender_to", "shown", "unusable", "wait_for_news",
]  # fmt: skip


def wait_for_news(listener: Listener, seconds: float) -> bool:
    """Wait for news, at most so long; say whether there is any. Unlike select(), at home with any descriptor."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))


def listen(url: str, ear: Ear) -> Listener:
    """Return an ear for what is announced by those who write the ledger of this URL."""
    if url.startswith("sqlite"):
        from celeriac.broker.sockets import SocketListener

        return SocketListener(url, ear)
    from celeriac.broker.notices import NoticeListener

    return NoticeListener(url, ear)


def announcer(url: str) -> Announcer:
    """Return what tells those who listen with `listen`."""
    if url.startswith("sqlite"):
        from celeriac.broker.sockets import SocketAnnouncer

        return SocketAnnouncer(url)
    from celeriac.broker.notices import NoticeAnnouncer

    return NoticeAnnouncer(url)


def check_package(url: str) -> None:
    """See to it that what speaks to this broker is installed. Raises CannotStart."""
    if url.startswith("redis") and find_spec("redis") is None:
        raise CannotStart(f"The broker {shown(url)} needs a package that is missing: pip install 'celeriac[redis]'.")


def unusable(url: str, error: Exception) -> CannotStart:
    """Return what to tell of a broker that does not answer, or not to us."""
    why = as_line(error).rstrip(".")
    return CannotStart(f"The broker {shown(url)} cannot be used: {why}. Is it running, are address and password right?")


def sender_to(url: str, window: int) -> Callable[[], Sender]:
    """Return what connects to a broker to send hints; the connection's library tells what prevents it."""
    if url.startswith("redis"):
        from celeriac.broker.redis import RedisSender

        return partial(RedisSender, url, window)
    from celeriac.broker.rabbitmq import RabbitSender

    return partial(RabbitSender, url, window)


def receiver(url: str) -> Receiver:
    """Connect to a broker to receive; the connection's library tells what prevents it."""
    if url.startswith("redis"):
        from celeriac.broker.redis import RedisReceiver

        return RedisReceiver(url)
    from celeriac.broker.rabbitmq import RabbitReceiver

    return RabbitReceiver(url)


def shown(url: str) -> str:
    """Return a broker's URL as it may be shown: without user, password and options."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or '127.0.0.1'}{port}{parts.path}"
