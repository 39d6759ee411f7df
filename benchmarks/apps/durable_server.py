"""The baseline's durable submit: Flask writes a row and commits, then publishes and waits for the confirmation."""

import os
import threading
import uuid
from typing import Any

import amqp
import psycopg
from flask import Flask, request
from kombu.utils.url import parse_url

server = Flask(__name__)
mine = threading.local()


def connections() -> tuple["psycopg.Connection[Any]", Any]:
    """Return this thread's connections, made on first use."""
    if not hasattr(mine, "made"):
        broker = parse_url(os.environ["BASELINE_BROKER"])
        connection = amqp.Connection(f"{broker['hostname']}:{broker['port']}", virtual_host="/", confirm_publish=True)
        connection.connect()
        channel = connection.channel()
        channel.queue_declare("durable", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        mine.made = psycopg.connect(os.environ["BASELINE_ROWS"]), channel, connection
    return mine.made[:2]  # type: ignore[no-any-return]


@server.post("/jobs")
def submit() -> tuple[dict[str, Any], int]:
    """Accept a job so that it is neither lost nor forgotten."""
    rows, channel = connections()
    id, data = str(uuid.uuid4()), request.get_data()
    rows.execute("INSERT INTO jobs (id, body, state) VALUES (%s, %s, 'queued')", (id, data.decode()))
    rows.commit()
    message = amqp.Message(data, content_type="application/json", delivery_mode=2, correlation_id=id)
    channel.basic_publish(message, "", "durable")
    return {"id": id}, 202
