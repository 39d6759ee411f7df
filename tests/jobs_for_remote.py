"""An app with queues of every kind and a limited task, for what remote control and routing do."""

from jobs_for_tests import ran
from kombu import Exchange, Queue
from kombu.common import Broadcast

from celeriac import Celeriac

media = Exchange("media", type="topic")
app = Celeriac(
    "remote",
    config={
        "task_queues": [
            Queue("default"),
            Queue("videos", media, routing_key="video.#"),
            Queue("images", media, routing_key="image.*"),
            Broadcast("everybody"),
        ],
        "task_send_sent_event": True,
    },
)


@app.task(name="where", bind=True)
def where(self) -> str:
    return self.request.delivery_info["routing_key"]


@app.task(name="limited", rate_limit="2/s")
def limited() -> None:
    ran("limited")


@app.task(name="free")
def free(seconds: float = 0) -> None:
    import time

    time.sleep(seconds)
    ran("free")


@app.task(name="shout", bind=True)
def shout(self) -> None:
    ran(f"shout:{self.request.hostname}")


@app.task(name="headers", bind=True)
def headers(self) -> str | None:
    return self.request.headers.get("trace") if self.request.headers else getattr(self.request, "trace", None)
