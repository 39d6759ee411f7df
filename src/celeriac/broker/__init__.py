"""What carries: announcements between the processes of an instance.

With RabbitMQ or Redis the publisher and the depth of queues are here too. Nothing in this
part writes a row; losing anything it carries costs time, never work. `listen` and `announcer`
choose the way that fits the ledger's URL.
"""

import select

from celeriac.broker.announcements import Announcer, Ear, Listener, News

__all__ = ["Announcer", "Ear", "Listener", "News", "announcer", "listen", "wait_for_news"]


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
