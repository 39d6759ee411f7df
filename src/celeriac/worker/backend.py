"""Celery's result backend on the ledger: reads for everybody, notes for a running attempt.

The only place where the ledger's states wear Celery's names. `AsyncResult.get()` is woken by
announcements. Inside an attempt `store_result` writes nothing: it notes the result in the
attempt's box (`capture`), and the main process commits it with the outcome.
"""

import threading
import weakref
from dataclasses import replace
from typing import Any

import kombu.utils.json
import msgspec
from celery import states as celery_states
from celery.backends.asynchronous import AsyncBackendMixin, BaseResultConsumer
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult
from kombu.exceptions import EncodeError

from celeriac import clock
from celeriac.access import SYSTEM
from celeriac.app import capture, capturing
from celeriac.broker import Ear, Listener, listen, wait_for_news
from celeriac.errors import JobNotFound
from celeriac.jobs import CHORD_RESULTS, Chord, ErrorCode, Failure, Job, Remark, storable
from celeriac.ledger import forget, open_chord, read, remark
from celeriac.states import State
from celeriac.worker.capture import Box
from celeriac.worker.failures import failure_of

CELERY_STATES = {
    State.SCHEDULED: celery_states.PENDING,
    State.QUEUED: celery_states.PENDING,
    State.RUNNING: celery_states.STARTED,
    State.RETRYING: celery_states.RETRY,
    State.SUCCEEDED: celery_states.SUCCESS,
    State.FAILED: celery_states.FAILURE,
    State.CANCELLED: celery_states.REVOKED,
}


LOOK_SECONDS = 1.0

# What the tracer stores by itself: results, which are noted, and what the ledger knows anyway.
_NOTED = frozenset({celery_states.SUCCESS, celery_states.FAILURE, celery_states.RETRY, celery_states.REVOKED})
_KNOWN = frozenset({celery_states.PENDING, celery_states.RECEIVED, celery_states.STARTED, celery_states.REJECTED,
                    celery_states.IGNORED})  # fmt: skip


class LedgerBackend(AsyncBackendMixin, BaseBackend):
    """`result_backend` of a Celeriac app."""

    persistent = True
    supports_autoexpire = True
    supports_native_join = False

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.result_consumer = ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )

    def as_uri(self, include_password: bool = False) -> str:
        """Return what `celery report` shows."""
        return "celeriac://"

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Prepare nothing: waiting starts when somebody waits."""

    def encode_result_text(self, result: Any) -> str:
        """Return a result as the JSON text that is stored. Raises EncodeError if it is not JSON."""
        try:
            text = storable_json(
                kombu.utils.json.dumps(self.prepare_value(result), allow_nan=False, ensure_ascii=False)
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"the result is not JSON: {error}") from error
        most = self.app.settings.max_result_bytes
        if len(text) > most // 4 and len(text.encode()) > most:
            raise EncodeError(
                f"the result is {len(text.encode()):,} bytes of JSON, more than the {most:,} of "
                "CELERIAC_MAX_RESULT_BYTES. Return less, or raise the limit."
            )
        return text

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        return result  # never reached: `store_result` below does not call it

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Note a result in the box of the running attempt, and tell the ledger of a state of the task's own."""
        found = capture.get()
        box = found if isinstance(found, Box) and found.job == task_id else None
        if state in _NOTED:
            if box is not None:
                self._note(box, result, state, traceback, request)
        elif state not in _KNOWN:
            text = self.encode_result_text(result)
            if box is not None:
                box.reports.remark(state, text)
            else:
                self._remark(task_id, state, text)
        return result

    def _note(self, box: Box, result: Any, state: str, traceback: Any, request: Any) -> None:
        if state == celery_states.SUCCESS:
            box.result = self.encode_result_text(result)
            children = self.current_task_children(request)
            box.children = kombu.utils.json.dumps({"children": children}) if children else None
        elif isinstance(result, BaseException):
            box.failure = failure_of(result, traceback, self._exception_text(result))
        elif state == celery_states.FAILURE:  # update_state(state="FAILURE", meta=…), followed by Ignore
            told = result if isinstance(result, dict) else {"exc_message": result}
            message = told.get("exc_message", told)
            text = " ".join(map(str, message)) if isinstance(message, list | tuple) else str(message)
            box.failure = Failure(ErrorCode.RAISED, str(told.get("exc_type", "Failure")), storable(text, 100_000))

    def _remark(self, task_id: str, state: str, text: str) -> None:
        """Keep what somebody else says of a running job."""
        job = read.summary(self.app.ledger, SYSTEM, task_id)
        if job.state is State.RUNNING:
            self.app.ledger.do(remark, Remark(job.key, job.attempt, clock.micros(), storable(state, 100), text))

    def mark_as_failure(self, task_id: str, exc: Any, *args: Any, **kwargs: Any) -> None:
        """Note a failure, and capture the error callbacks."""
        with capturing():
            super().mark_as_failure(task_id, exc, *args, **kwargs)

    def _fail_chain(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the ledger gives up the links behind a failed one where its outcome commits."""

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count nothing: the ledger counts a chord's parts where their outcomes commit."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Keep the body's messages, with a mark where the results will go."""
        self.ensure_chords_allowed()
        with capturing(job="") as box:
            body.apply_async((CHORD_RESULTS,))
        bodies = tuple(replace(item, existing_ok=True) for item in box.sends)
        self._open(Chord(header_result_args[0], body=bodies, chords=tuple(box.chords)))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Note how many members must succeed."""
        self._open(Chord(group_id, size=chord_size))

    def _open(self, chord: Chord) -> None:
        box = capture.get()
        if box is not None and box.open:
            box.chords.append(chord)
        else:
            self.app.ledger.do(open_chord, chord)

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        try:
            job = read.job(self.app.ledger, SYSTEM, task_id)
        except JobNotFound:
            return {"status": celery_states.PENDING, "result": None, "task_id": task_id}
        return self._meta(job)

    def _meta(self, job: Job) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "status": CELERY_STATES[job.state], "result": None, "task_id": job.id, "children": [], "traceback": None,
            "name": job.task, "queue": job.queue,
        }  # fmt: skip
        told = msgspec.json.decode(job.celery_meta) if job.celery_meta else {}
        meta["children"] = told.get("children") or []
        if job.state is State.RUNNING and job.celery_state and told.get("attempt") == job.attempt:
            meta |= {"status": job.celery_state, "result": told["meta"]}
        elif job.state is State.SUCCEEDED and job.result is not None:
            meta["result"] = self.decode(job.result)
        elif job.state is State.CANCELLED:
            meta["result"] = TaskRevokedError("expired" if job.failure else "revoked")
        elif job.failure is not None and meta["status"] in celery_states.EXCEPTION_STATES:
            meta["traceback"] = job.failure.traceback
            text = job.failure.celery
            meta["result"] = self.exception_to_python(self.decode(text) if text else _as_celery(job.failure))
        return meta

    def _forget(self, task_id: str) -> None:
        self.app.ledger.do(forget, task_id)

    def _save_group(self, group_id: str, result: Any) -> Any:
        return result  # the ledger knows the members of every group

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        members = read.members(self.app.ledger, group_id)
        result = GroupResult(group_id, [self.app.AsyncResult(id) for id in members], app=self.app)
        return {"result": result, "task_id": group_id} if members else None

    def _delete_group(self, group_id: str) -> None:
        """Do nothing: a group is the sum of its jobs."""

    def _exception_text(self, error: BaseException) -> str | None:
        try:
            text: str = kombu.utils.json.dumps(self.prepare_exception(error), ensure_ascii=False)
            return storable_json(text)
        except Exception:
            return None

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {})})


class ResultConsumer(BaseResultConsumer):
    """Waits for announcements of ended jobs, and looks at the ledger in case one was lost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._looked_at = 0.0

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Open the ear."""
        self.consume_from(initial_task_id)

    def consume_from(self, task_id: str) -> None:
        """Open the ear before the first look, so that nothing falls between the two."""
        with self._lock:
            if self._listener is None:
                self._listener = listen(self.app.settings.announcements_url, Ear.HUB)
                self._closing = weakref.finalize(self, self._listener.close)  # also at exit; a fork's leaves ours alone

    def cancel_for(self, task_id: str) -> None:
        """Forget nothing: there is one ear for all results."""

    def stop(self) -> None:
        """Close the ear."""
        with self._lock:
            if self._listener is not None:
                self._closing()
                self._listener = None

    def on_after_fork(self) -> None:
        """Open an ear of its own in the child."""
        self._listener, self._lock = None, threading.Lock()

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Look once before waiting: the job may have ended already."""
        self.consume_from("")
        for meta in result._iter_meta(**kwargs):
            if meta is not None and meta["status"] in celery_states.READY_STATES:
                self.on_state_change(meta, None)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for an announcement, at most a second, then settle every pending result that has ended.

        All of them are looked at once a second, and whenever one may have been missed.
        """
        self.consume_from("")
        listener = self._listener
        if listener is None:
            raise TimeoutError
        heard = wait_for_news(listener, min(timeout or LOOK_SECONDS, LOOK_SECONDS))
        told = listener.receive() if heard else []
        ended = {id for waiting in self._pending_results for id in list(waiting)}
        now = clock.monotonic()
        if heard and all(told) and now - self._looked_at <= LOOK_SECONDS:
            ended &= {id for news in told for id in news.ends}
        else:
            ended, self._looked_at = set(read.ended(self.app.ledger, list(ended))), now
        for id in ended:
            meta = self.backend._get_task_meta_for(id)
            if meta["status"] in celery_states.READY_STATES:
                self.on_state_change(meta, None)
        if not heard:
            raise TimeoutError


def storable_json(text: str) -> str:
    """Return JSON text without lone surrogates; NUL is an escape inside JSON and stays."""
    return storable(text, len(text) + 1)


def _as_celery(failure: Failure) -> dict[str, Any]:
    return {"exc_type": failure.type or "Exception", "exc_message": [failure.message], "exc_module": None}
