"""What carries: announcements between the processes of an instance.

With RabbitMQ or Redis the publisher and the depth of queues are here too. Nothing in this
part writes a row; losing anything it carries costs time, never work.
"""

from celeriac.broker.announcements import Announcer, Listener, News

__all__ = ["Announcer", "Listener", "News"]
