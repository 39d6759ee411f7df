"""The sender of observe mode: messages go to their own broker as ever, and what is seen of them to the ledger.

`ObservedAMQP` stands where Celery makes its sender; `Observer` takes Sightings from it and from
worker/observe.py and writes them in the background. It never raises, blocks or slows down who
tells it something: a ledger that cannot be written costs a bounded memory, then sightings, and a
line in the log. Next: ledger/moves/observe.py.
"""

import atexit
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import kombu.utils.json
from celery.app.amqp import AMQP

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app.sender import shown_by_name
from celeriac.instance import connect
from celeriac.jobs import Kind, Message, Submission, preview, storable
from celeriac.ledger import Group, Move, Sighting, migrations, nodes, sight
from celeriac.ledger.sql import as_json
from celeriac.settings import Settings

log = logging.getLogger(__name__)

MOST = 10_000  # sightings that wait while the ledger cannot be written
BODY_CHARACTERS = 256 * 1024  # of larger arguments and results only the preview is kept
LOOK_SECONDS = 5.0
QUIET_SECONDS = 60.0
EXIT_SECONDS = 2.0
ORDER = (nodes.register, nodes.beat, sight, nodes.stop)


class Observer:
    """Writes what this process sees. `carry` takes its place in a pool's child, which has no ledger."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.carry: Callable[[Sighting], None] | None = None
        self._settings = settings
        self._forget()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.stop, EXIT_SECONDS)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._group: Group | None = None
        self._finder: threading.Thread | None = None
        self._stopping = threading.Event()
        self._early: deque[tuple[Move[Any, Any], Any, Callable[[Any], None]]] = deque()
        self._waiting = self._lost = 0
        self._told_at = -QUIET_SECONDS

    def see(self, sighting: Sighting) -> None:
        """Write a sighting down, soon."""
        if self.carry is not None:
            self.carry(sighting)
        else:
            self.add(sight, sighting)

    def add(self, move: Move[Any, Any], item: Any, callback: Callable[[Any], None] | None = None) -> None:
        """Make a move, soon; drop it when too many wait."""
        with self._lock:
            if self._waiting >= MOST or self._stopping.is_set():
                self._lose(f"{self._waiting:,} of them wait already")
                return
            self._waiting += 1
            entry = move, item, lambda answer: self._written(answer, callback)
            if self._group is None:
                self._early.append(entry)
                self._open()
            else:
                self._group.add(*entry, urgent=False)

    def stop(self, seconds: float = 20) -> None:
        """Write what waits, for so long at most, and take no more."""
        if self._finder is not None:
            self._finder.join(seconds)  # a program may end before its first sighting has found the ledger
        self._stopping.set()
        if self._group is not None:
            self._group.stop(seconds)

    def lose(self, error: Exception) -> None:
        """Take note of something seen that cannot be described."""
        with self._lock:
            self._lose(f"{type(error).__name__}: {error}")

    def _open(self) -> None:
        if self._finder is None:
            self._finder = threading.Thread(target=self._find, name="celeriac-observer", daemon=True)
            self._finder.start()

    def _find(self) -> None:
        """Wait for a ledger of this version, and hand over what has gathered meanwhile."""
        while not self._stopping.is_set():
            try:
                ledger = connect(self._settings())
                migrations.check(ledger)
            except Exception as error:  # whatever it is: the attached app goes on without us
                with self._lock:
                    self._tell(f"This app is not observed at the moment: {error}")
                self._stopping.wait(LOOK_SECONDS)
                continue
            group = Group(ledger, ORDER, patient=True)
            with self._lock:
                for entry in self._early:
                    group.add(*entry, urgent=False)
                self._early.clear()
                self._group = group
            return

    def _written(self, answer: Any, callback: Callable[[Any], None] | None) -> None:
        with self._lock:
            self._waiting -= 1
            if isinstance(answer, Exception):
                self._lose(str(answer))
        if callback is not None:
            callback(answer)

    def _lose(self, why: str) -> None:
        self._lost += 1
        self._tell(f"{self._lost:,} sightings of jobs are not in the ledger: {why}.")

    def _tell(self, what: str) -> None:
        now = clock.monotonic()
        if now - self._told_at >= QUIET_SECONDS:
            self._told_at = now
            log.warning("%s The jobs themselves are not touched by that.", what)


class ObservedAMQP(AMQP):
    """An app's own message factory, looked over the shoulder."""

    def _create_task_sender(self) -> Callable[..., Any]:
        publish = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            answer = publish(producer, name, message, **options)
            try:
                self._see(message, options)
            except Exception as error:  # the message is on its way; that we cannot describe it must not undo that
                self.app.observer.lose(error)
            return answer

        return send_task_message

    def _see(self, message: Any, options: dict[str, Any]) -> None:
        headers, properties, body = message.headers, message.properties, message.body
        if "id" not in headers:  # protocol 1; its worker will tell
            return
        priority = options.get("priority") or properties.get("priority")
        queue = queue_name(self, options)
        self.app.observer.see(sent(observed(self.app, headers, body[0], body[1], queue, priority)))


def sent(submission: Submission) -> Sighting:
    """Return the sighting of a message that its broker has taken."""
    return Sighting(submission.id, clock.micros(), Kind.SENT, submission=submission)


def queue_name(amqp: AMQP, options: Mapping[str, Any]) -> str:
    """Return the queue that a message with these options goes to, as far as its producer knows."""
    queue = options.get("queue")
    if queue is None:
        queue = options.get("routing_key") if options.get("exchange") is not None else amqp.default_queue
    return str(getattr(queue, "name", queue))


def observed(
    app: Any, headers: Mapping[str, Any], arguments: Any, keywords: Any, queue: str, priority: Any
) -> Submission:
    """Describe somebody else's message as a job that is only looked at."""
    task = app.tasks.get(headers["task"])
    listed, named = json.loads(json_text(list(arguments))), json.loads(json_text(dict(keywords)))
    shown = shown_by_name(task, app.settings.redact, listed, named)
    body = as_json([[], shown, {}])
    kept = {name: headers.get(name) for name in HEADERS}
    return Submission(
        id=headers["id"],
        task=headers["task"],
        queue=queue,
        owner=SYSTEM.owner,
        message=Message(json_text(kept), "{}", body if len(body) <= BODY_CHARACTERS else "[[],{},{}]"),
        args=preview(shown),
        priority=int(priority or 0),
        run_at=clock.parsed(headers.get("eta")),  # an expiry is left to whom the broker gives it
        parent=headers.get("parent_id"),
        root=headers.get("root_id"),
        group=headers.get("group"),
        group_index=headers.get("group_index"),
        existing_ok=True,
        observed=True,
    )


HEADERS = ("id", "task", "retries", "eta", "expires", "group", "root_id", "parent_id", "origin", "timelimit")


def json_text(value: Any) -> str:
    """Return any value as JSON text; what has no JSON is shown by its repr."""
    try:
        return storable(kombu.utils.json.dumps(value, ensure_ascii=False), 1 << 40)
    except Exception:
        return json.dumps(_plain(value, 6))


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping) and depth:
        return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth:
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, (int, float, bool)):
        return value
    try:
        return storable(repr(value), 2000)
    except Exception:
        return f"<{type(value).__name__}>"
