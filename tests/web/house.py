"""A web process for tests: a real server on a real socket, in a thread, over a ledger of its own.

`end` and `take` do what a worker would do, with the ledger's own moves.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from celeriac import Celeriac, clock
from celeriac.access import Role
from celeriac.app import connect
from celeriac.jobs import Claimed, ClaimRequest, Failure, Kind, Outcome, Start, new_id
from celeriac.ledger import Ledger, claim, finish, keys, start
from celeriac.ledger.sql import as_json
from celeriac.settings import Settings, load
from celeriac.states import State
from celeriac.web import create_app
from celeriac.web.server import bind, server
from celeriac.web.site import Site
from web.alone import finalize_alone
from web.tasks_for_web import app

JSON = {"Content-Type": "application/json"}


class House:
    """One running web process."""

    def __init__(self, home: Path, pages: Path | None = None, app: Celeriac = app, **settings: Any) -> None:
        finalize_alone(app)
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.settings: Settings = load(home=home, port=self.port, **settings)
        self.ledger: Ledger = connect(self.settings)
        self.application = create_app(self.settings, app, pages)
        self._server = server(self.application, self.settings)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self._tokens: dict[tuple[str, Role], str] = {}
        self._clients: dict[tuple[str, Role | None], httpx.Client] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def site(self) -> Site:
        site: Site = self.application.state.site
        return site

    def token(self, owner: str = "ann", role: Role = Role.ADMIN) -> str:
        if (owner, role) not in self._tokens:
            self._tokens[owner, role] = keys.create_token(self.ledger, new_id(), owner, role)
        return self._tokens[owner, role]

    def client(self, owner: str = "ann", role: Role | None = Role.ADMIN) -> httpx.Client:
        """A client with a token of this owner and role; with None, a stranger."""
        if (owner, role) not in self._clients:
            headers = {} if role is None else {"Authorization": f"Bearer {self.token(owner, role)}"}
            self._clients[owner, role] = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)
        return self._clients[owner, role]

    def submit(self, task: str = "echo", owner: str = "ann", role: Role = Role.ADMIN, **fields: Any) -> dict[str, Any]:
        response = self.client(owner, role).post("/api/v1/jobs", json={"task": task, **fields})
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    def take(self, queue: str) -> Claimed:
        """Claim and start the best job of a queue, as a worker does."""
        request = ClaimRequest("w1@host/7f3a", (queue,), as_json(["echo", "add", "measured", "listed"]), 1)
        [claimed] = self.ledger.do(claim, request)
        assert self.ledger.do(start, Start(claimed.key, claimed.attempt, clock.micros()))
        return claimed

    def end(self, queue: str, result: str | None = "42", failure: Failure | None = None) -> str:
        """Run the best job of a queue to its end, as a worker does; return its id."""
        claimed = self.take(queue)
        self.finish(claimed, result, failure)
        return claimed.id

    def finish(self, claimed: Claimed, result: str | None = "42", failure: Failure | None = None) -> None:
        state, kind = (State.FAILED, Kind.FAILED) if failure else (State.SUCCEEDED, Kind.SUCCEEDED)
        outcome = Outcome(
            claimed.key, claimed.id, claimed.attempt, claimed.task, claimed.queue, state, clock.micros(), kind,
            result=None if failure else result, preview=None if failure else result, failure=failure,
        )  # fmt: skip
        assert self.ledger.do(finish, outcome)

    def begin_stop(self) -> None:
        """Do what SIGTERM does, without waiting for the end."""
        self._server.should_exit = True

    def stop(self) -> None:
        self.begin_stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        for client in self._clients.values():
            client.close()
        self.ledger.close()


@contextlib.contextmanager
def house(blank: Path, home: Path, **options: Any) -> Iterator[House]:
    """Give a running web process over a copy of a blank ledger, and stop it."""
    home.mkdir(exist_ok=True)
    shutil.copy(blank, home / "ledger.db")
    made = House(home, **options)
    try:
        yield made
    finally:
        made.stop()


def unique(name: str) -> str:
    """A name that no other test uses, for queues, tags and owners."""
    return f"{name}-{new_id()}"
