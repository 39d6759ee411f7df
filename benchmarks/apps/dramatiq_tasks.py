"""The baseline's task for dramatiq, with results. Run as a program it sends so many messages."""

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["BASELINE_BROKER"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BASELINE_RESULTS"])))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="echo", store_results=True)
def echo(value: Any) -> Any:
    """Give back what it got."""
    return value


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        echo.send(value=1)
