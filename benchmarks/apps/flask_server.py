"""The baseline's web server: Flask, `.delay()` for a submit, `.get()` for a long poll."""

from typing import Any

from flask import Flask, request

from benchmarks.apps.celery_tasks import app

server = Flask(__name__)


@server.post("/jobs")
def submit() -> tuple[dict[str, Any], int]:
    """Send the task and answer with its id."""
    asked = request.get_json()
    return {"id": app.tasks[asked["task"]].delay(**asked["args"]).id}, 202


@server.get("/jobs/<id>")
def job(id: str) -> dict[str, Any]:
    """Wait for the result."""
    return {"id": id, "result": app.AsyncResult(id).get(timeout=30)}
