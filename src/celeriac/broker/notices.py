"""Announcements through Postgres: LISTEN on a connection of its own, NOTIFY after the commit, never in it.

A NOTIFY takes a lock of the whole server when its transaction commits, and one within each write
would put all writers in a row. So a thread sends them, many commits in one. The URL must
lead to the server itself: pgbouncer in transaction mode cannot listen (CELERIAC_DATABASE_DIRECT_URL).
"""

import atexit
import contextlib
import logging
import os
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
from psycopg.pq import ExecStatus

from celeriac.broker.announcements import Ear, News, by_ear, decode, encode, together

log = logging.getLogger(__name__)

CHANNEL = "celeriac_"
_NOTIFY = b"SELECT pg_notify($1, $2)"
# A notice may hold 8,000 bytes. An id has at most 255 characters, which JSON may spell with six bytes each.
_NOTICE_BYTES = 7_900
_NOTICE_ITEMS = 100
_PAUSE_SECONDS = 0.1
_PAUSE_MOST_SECONDS = 5.0
_WAIT_SECONDS = 30.0
# Each notice is a transaction, so they keep a distance, the greater the more they tell: with 20 jobs in each, half of
# all the transactions of a busy worker were notices. One that comes alone does not wait.
_APART_SECONDS = 0.005
_APART_PER_JOB_SECONDS = 0.001
_APART_MOST_SECONDS = 0.025
_WAITING_MOST = 10_000


def _connect(url: str) -> "psycopg.Connection[Any]":
    address, _, query = url.replace("+psycopg", "", 1).partition("?")
    known = [pair for pair in query.split("&") if not pair.startswith("prepare_threshold=")]  # meant for the ledger
    return psycopg.connect(
        f"{address}?{'&'.join(known)}", autocommit=True, connect_timeout=5, application_name="celeriac news",
        keepalives_idle=5, keepalives_interval=3, keepalives_count=2, tcp_user_timeout=12_000,
        target_session_attrs="read-write",  # a standby neither takes notices nor lets anybody listen
    )  # fmt: skip


class _Thread(ABC):
    """Keeps a connection and a thread that uses it, through outages, until closed."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._closing = False
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        pause = _PAUSE_SECONDS
        while not self._closing:
            try:
                with _connect(self._url) as connection:
                    pause = _PAUSE_SECONDS
                    self._work(connection)
            except Exception as error:  # whatever it is, it costs speed and nothing else
                if not self._closing:
                    log.log(logging.DEBUG if pause > _PAUSE_SECONDS else logging.WARNING,
                            "Announcements pause: %s", " ".join(str(error).split()))  # fmt: skip
                    self._interrupted()
                    self._ended.wait(pause)
                    pause = min(2 * pause, _PAUSE_MOST_SECONDS)

    @abstractmethod
    def _interrupted(self) -> None:
        """Take note that the connection was lost, or could not be made."""

    @abstractmethod
    def _work(self, connection: "psycopg.Connection[Any]") -> None:
        """Use the connection until closed; any error leads to another connection."""


class NoticeListener(_Thread):
    """An ear on a channel. Its thread hears; a pair of sockets tells the process's own event loop."""

    def __init__(self, url: str, ear: Ear) -> None:
        super().__init__(url, "celeriac-listener")
        self._channel = f"{CHANNEL}{ear}"
        self._heard: deque[News] = deque()
        self._out, self._in = socket.socketpair()
        self._end_out, self._end_in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._listening = threading.Event()
        self._thread.start()
        self._listening.wait(5)  # what is committed from now on is heard, unless the server cannot be reached;
        self._listening.set()  # then everything is looked at once it can be

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is news."""
        return self._out.fileno()

    def receive(self) -> list[News]:
        """Return all news that has arrived; never waits."""
        with contextlib.suppress(OSError):
            while self._out.recv(4096):
                pass
        heard = []
        with contextlib.suppress(IndexError):
            while True:
                heard.append(self._heard.popleft())
        return heard

    def poke(self) -> None:
        """Make this listener readable: the way to wake its own event loop."""
        self._hear(News())

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        self._ended.set()
        if os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                self._end_in.send(b"!")
            self._thread.join(5)
        for end in (self._out, self._in, self._end_out, self._end_in):
            end.close()

    def _interrupted(self) -> None:
        """Do nothing: everything is looked at once the connection is back."""

    def _work(self, connection: "psycopg.Connection[Any]") -> None:
        connection.execute(f"LISTEN {self._channel}")
        if self._listening.is_set():
            self.poke()  # what was told meanwhile is lost
        self._listening.set()
        poll = select.poll()
        for end in (connection, self._end_out):
            poll.register(end.fileno(), select.POLLIN)
        while not self._closing:
            if not poll.poll(_WAIT_SECONDS * 1000):
                connection.execute("SELECT 1")  # a server that is gone without a word is noticed here
            for notice in connection.notifies(timeout=0):
                try:
                    self._hear(decode(notice.payload))
                except msgspec.DecodeError:
                    self.poke()

    def _hear(self, news: News) -> None:
        self._heard.append(news)
        with contextlib.suppress(OSError):  # full: it is readable already
            self._in.send(b"!")


class NoticeAnnouncer(_Thread):
    """Tells through the server. News of an outage are dropped: listeners look at the ledger when they are back."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "celeriac-announcer")
        self._waiting: deque[News] = deque(maxlen=_WAITING_MOST)
        self._dropped = False
        self._wake = threading.Condition()
        self._started = False

    def announce(self, news: News) -> None:
        """Hand news to the thread."""
        if not news:
            return
        with self._wake:
            self._waiting.append(news)
            if not self._started:
                self._started = True
                self._thread.start()
                atexit.register(self.close)  # what a short program has submitted is told before it ends
            self._wake.notify()

    def close(self) -> None:
        """Tell what waits, then nobody any more."""
        if os.getpid() != self._pid:  # a child that was forked: its parent's thread may have held the lock
            return
        with self._wake:
            self._closing = True
            self._ended.set()
            self._wake.notify()
        atexit.unregister(self.close)
        if self._started:
            self._thread.join(2)

    def _interrupted(self) -> None:
        with self._wake:
            self._waiting.clear()
        self._dropped = True

    def _work(self, connection: "psycopg.Connection[Any]") -> None:
        connection.execute("SET synchronous_commit = off")  # nothing is lost that matters
        if self._dropped:
            for ear in Ear:
                self._tell(connection, ear, encode(News()).decode())
            self._dropped = False
        quiet_until = 0.0
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
            self._ended.wait(quiet_until - time.monotonic())
            with self._wake:
                waiting = list(self._waiting)
                self._waiting.clear()
            if not waiting:
                return
            news = together(waiting)
            for ear, payload in payloads(news):
                self._tell(connection, ear, payload)
            apart = min(_APART_SECONDS + _APART_PER_JOB_SECONDS * len(news.ends), _APART_MOST_SECONDS)
            quiet_until = time.monotonic() + apart

    def _tell(self, connection: "psycopg.Connection[Any]", ear: Ear, payload: str) -> None:
        # Past the driver, which waits for the answer in Python: that would cost three times as much.
        told = connection.pgconn.exec_params(_NOTIFY, [f"{CHANNEL}{ear}".encode(), payload.encode()])
        if told.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(told)


def payloads(news: News) -> list[tuple[Ear, str]]:
    """Return news as what a notice may hold; what is too long becomes a call to look at everything."""
    told = []
    for ear, part in by_ear(news, _NOTICE_ITEMS):
        payload = encode(part)
        told.append((ear, (payload if len(payload) <= _NOTICE_BYTES else encode(News())).decode()))
    return told


def within(execute: Callable[[str, tuple[str, str]], object], news: News) -> None:
    """Announce in a caller's own transaction: the server tells it with the commit, and not before."""
    for ear, payload in payloads(news):
        execute("SELECT pg_notify(%s, %s)", (f"{CHANNEL}{ear}", payload))
