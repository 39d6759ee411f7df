"""The kombu transport whose queue is the ledger itself: `broker_url = "celeriac://"`.

Jobs are not messages here: a worker node claims rows (`worker/node.py`) and this transport
hands them to Celery's consumer as if they had come from a broker. Celery's own small talk,
remote control and events, travels through a mailbox table.
`docs/tour.md` follows one job through the files.
"""

from celeriac.transport.transport import Channel, Source, Transport

__all__ = ["Channel", "Source", "Transport"]
