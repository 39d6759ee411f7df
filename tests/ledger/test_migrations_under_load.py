"""Two versions side by side: while programs of the revision before work, the database is migrated and ours come and go.

Nothing is lost and no request fails, neither through a web process of the one nor of the other.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import postgres
import pytest
from databases import DATABASES
from instance import instance, until
from nursery import Nursery
from oracle import violations

from celeriac.states import State
from ledger.previous import Previous, unpack

# What Postgres has prepared by the time of the migration; lists would let it forget.
SHORT_LOOKS = ("/workers", "/queues", "/stats")
LOOKS = (
    "/workers", "/queues", "/stats", "/jobs?q=re", "/jobs?tag=red&state=queued", "/jobs?task=add", "/operations",
    "/tokens",
)  # fmt: skip


class Load(threading.Thread):
    """Submits through a web process, and looks at everything there, until it is told to stop."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(daemon=True)
        self.ids: list[str] = []
        self.failures: list[str] = []
        self.slowest = 0.0
        self.looks: tuple[str, ...] = SHORT_LOOKS
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        self._stopping = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopping.is_set():
            body = {"task": "add", "args": {"x": len(self.ids), "y": 1}, "tags": ["red"], "priority": len(self.ids) % 3}
            answer = self._ask("POST", "/jobs", json=body)
            if answer is not None:
                self.ids.append(answer.json()["id"])
                self._ask("GET", f"/jobs/{self.ids[-1]}")
            self._ask("GET", self.looks[len(self.ids) % len(self.looks)])

    def _ask(self, method: str, path: str, **body: object) -> httpx.Response | None:
        began = time.monotonic()
        try:
            answer = self._client.request(method, path, **body)
        except httpx.HTTPError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return None
        self.slowest = max(self.slowest, time.monotonic() - began)
        if answer.is_success:
            return answer
        self.failures.append(f"{method} {path}: {answer.status_code} {answer.text}")
        return None

    def goes_on(self) -> None:
        """Wait until a good deal more has been accepted."""
        goal = len(self.ids) + 40
        until(lambda: len(self.ids) >= goal or len(self.failures) > 3, f"{goal} jobs to be accepted: {self.failures}")

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._client.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the version before revision 0003."""
    folder = tmp_path_factory.mktemp("previous")
    if not unpack(folder):
        pytest.skip("There is no history of this repository here to take the version before from.")
    return folder


@pytest.fixture(params=DATABASES)
def previous(request: pytest.FixtureRequest, tmp_path: Path, source: Path) -> Iterator[Previous]:
    """A database that the version before has made, and its processes."""
    url = f"sqlite:///{tmp_path}/both.db"
    if request.param == "postgres":
        request.getfixturevalue("blank_postgres")
        url = postgres.server().create("two_versions")
    made = Previous(source, tmp_path / "previous", url)
    made.run("migrate")
    yield made
    made.stop()


def test_the_version_before_works_on_while_the_database_is_migrated_and_ours_takes_over(
    previous: Previous, tmp_path: Path, nursery: Nursery
):
    token = previous.run("token", "create", "test", "--role", "admin")
    for arguments in (("web", "both:app"), ("worker", "both:app", "-c", "2"), ("keeper",)):
        previous.start(*arguments)
    until(lambda: answers(previous.port), "the web process of the version before")
    loads = [Load(previous.port, token)]
    loads[0].goes_on()

    environment = {"PYTHONPATH": str(previous.home), "CELERIAC_DATABASE_URL": previous.url}
    migrating = nursery.start(["migrate"], {**environment, "CELERIAC_HOME": str(tmp_path)}, tmp_path, tmp_path / "log")
    assert migrating.wait(60) == 0, (tmp_path / "log").read_text()
    loads[0].goes_on()
    loads[0].looks = LOOKS
    loads[0].goes_on()
    with instance(tmp_path / "ours", app="both:app", database_url=previous.url, nursery=nursery) as ours:
        ours.environment["PYTHONPATH"] = str(previous.home)
        ours.keeper()
        ours.worker()
        ours.web()
        loads.append(Load(ours.port, token))
        for load in loads:
            load.goes_on()
        loads[0].stop()
        previous.stop()
        finishing = ours.start("finish", "migrate", "--finish")
        assert finishing.wait(60) == 0, ours.log("finish")
        loads[1].goes_on()
        loads[1].stop()
        ids = [id for load in loads for id in load.ids]
        jobs = ours.ended(ids)

        assert [load.failures for load in loads] == [[], []], (previous.home / "previous.log").read_text()[-3000:]
        assert {job.state for job in jobs} == {State.SUCCEEDED}
        assert violations(ours.ledger, ids) == []
        print(f"slowest requests: {[round(load.slowest, 3) for load in loads]} s")


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.HTTPError:
        return False
