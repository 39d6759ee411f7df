"""Announcements: heard by those they concern; a dead ear is removed, a full one hurts nobody, nothing ever waits."""

import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conformance.moves import SECOND, accept, end, look, running, success

from celeriac.access import SYSTEM
from celeriac.broker import Announcer, Ear, Listener, News, listen, sockets
from celeriac.broker import announcer as announcer_of
from celeriac.broker.announcements import together
from celeriac.broker.sockets import SocketAnnouncer, folder_of
from celeriac.errors import CannotStart
from celeriac.instance import connect
from celeriac.ledger import Asked, cancel
from celeriac.settings import Settings


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def url(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.db"


class Ears:
    """Listeners that are closed at the end of the test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.opened: list[Listener] = []

    def open(self, ear: Ear) -> Listener:
        listener = listen(self._url, ear)
        self.opened.append(listener)
        return listener


@pytest.fixture
def ears(url: str) -> Iterator[Ears]:
    ears = Ears(url)
    yield ears
    for listener in ears.opened:
        listener.close()


@pytest.fixture
def announcer(url: str) -> Iterator[Announcer]:
    announcer = SocketAnnouncer(url)
    yield announcer
    announcer._socket.close()


def tell(announcer: Announcer, **news: object) -> None:
    announcer.announce(News(**news))


def test_everybody_hears_what_concerns_them_and_no_more(announcer: Announcer, ears: Ears):
    worker, hub, keeper = ears.open(Ear.WORKER), ears.open(Ear.HUB), ears.open(Ear.KEEPER)

    tell(announcer, queues=["big"], cancels=["w1"], ends={"a": 3}, steps={"b": 4}, due_at=7)

    assert worker.receive() == [News(queues=["big"], cancels=["w1"])]
    assert hub.receive() == [News(ends={"a": 3}), News(steps={"b": 4})]
    assert keeper.receive() == [News(due_at=7)]


def test_all_listeners_of_a_kind_hear(announcer: Announcer, ears: Ears):
    workers = [ears.open(Ear.WORKER) for _ in range(3)]

    tell(announcer, queues=["default"])

    assert [worker.receive() for worker in workers] == [[News(queues=["default"])]] * 3


def test_nothing_is_told_of_a_commit_that_changed_nothing(announcer: Announcer, ears: Ears):
    listeners = [ears.open(ear) for ear in Ear]

    tell(announcer)

    assert [listener.receive() for listener in listeners] == [[], [], []]


def test_listening_never_waits(ears: Ears):
    assert ears.open(Ear.HUB).receive() == []


def test_a_poke_makes_only_this_listener_readable(ears: Ears):
    one, other = ears.open(Ear.WORKER), ears.open(Ear.WORKER)

    one.poke()

    assert one.receive() == [News()]
    assert other.receive() == []


def test_the_socket_of_a_dead_process_is_removed_and_the_living_still_hear(announcer: Announcer, ears: Ears, url: str):
    dead, alive = ears.open(Ear.HUB), ears.open(Ear.HUB)
    dead._socket.close()  # as a killed process leaves it: the file stays

    tell(announcer, ends={"a": 1})

    assert alive.receive() == [News(ends={"a": 1})]
    assert [path.name for path in folder_of(url).iterdir()] == [Path(alive._path).name]


def test_a_closed_listener_leaves_no_socket(ears: Ears, url: str):
    ears.open(Ear.HUB).close()

    assert list(folder_of(url).iterdir()) == []


def test_a_listener_that_does_not_listen_holds_up_nobody_and_hears_what_fits(announcer: Announcer, ears: Ears):
    deaf, alive = ears.open(Ear.HUB), ears.open(Ear.HUB)
    heard = 0
    for number in range(5000):
        tell(announcer, ends={"x" * 200: number})
        heard += len(alive.receive())

    assert heard == 5000
    assert 0 < len(deaf.receive()) < 5000


def test_what_was_lost_does_not_matter_to_what_comes(announcer: Announcer, ears: Ears):
    listener = ears.open(Ear.HUB)
    for number in range(5000):
        tell(announcer, ends={"x" * 200: number})
    listener.receive()

    tell(announcer, ends={"after": 1})

    assert listener.receive() == [News(ends={"after": 1})]


def test_a_batch_too_long_for_one_datagram_is_split(announcer: Announcer, ears: Ears):
    hub = ears.open(Ear.HUB)
    ends = {f"{number:0255}": number for number in range(1000)}

    tell(announcer, ends=ends)

    news = hub.receive()
    assert len(news) == 3
    assert {id: number for item in news for id, number in item.ends.items()} == ends


def test_a_datagram_that_cannot_be_read_wakes_all_the_same(ears: Ears):
    listener = ears.open(Ear.WORKER)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"\xff not json", str(listener._path))

    assert listener.receive() == [News()]


def test_the_sockets_lie_beside_the_database_closed_to_others(url: str, folder: Path):
    sockets = folder_of(url)

    assert sockets == folder / "ledger.news"
    assert sockets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["n" * 60, "é" * 40])
def test_a_path_too_long_for_a_socket_falls_back_to_the_folder_for_temporary_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    short = tempfile.mkdtemp(prefix="c", dir="/tmp")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: short)
    home = Path(tempfile.mkdtemp(prefix="h", dir="/tmp")) / name
    home.mkdir()
    url = f"sqlite:///{home}/ledger.db"

    folder = folder_of(url)
    assert folder.parent == Path(short)
    assert folder_of(f"sqlite:///{home}/other.db") != folder

    listener, announcer = listen(url, Ear.HUB), announcer_of(url)
    tell(announcer, ends={"a": 1})
    assert listener.receive() == [News(ends={"a": 1})]
    listener.close()
    announcer._socket.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs owners of files")
def test_a_folder_of_somebody_else_is_refused(url: str, monkeypatch: pytest.MonkeyPatch):
    folder_of(url)
    monkeypatch.setattr("os.getuid", lambda: 12345)

    with pytest.raises(PermissionError, match="belongs to somebody else"):
        folder_of(url)


def test_a_commit_is_told_to_those_it_concerns(ledger_url: str, wait_until: Callable[..., None]):
    """The ledger and the announcements, tied together as every process ties them."""
    ledger = connect(Settings(database_url=ledger_url))
    worker, hub, keeper = listeners = [listen(ledger_url, ear) for ear in (Ear.WORKER, Ear.HUB, Ear.KEEPER)]
    heard: dict[Listener, list[News]] = {listener: [] for listener in listeners}

    job = running(ledger, queue="big")
    run_at = look(ledger, job.id).created_at + 3600 * SECOND
    accept(ledger, run_at=run_at)
    ledger.do(cancel, Asked(SYSTEM, job.id))
    end(ledger, success(job))

    def all_heard() -> bool:
        for listener in listeners:
            heard[listener] += listener.receive()
        return bool(heard[worker] and together(heard[worker]).cancels and heard[hub] and heard[keeper])

    wait_until(all_heard, "three ears heard their news")
    assert together(heard[worker]) == News(queues=["big"], cancels=["w1@host/1"])
    assert heard[hub] == [News(ends={job.id: 5})]
    assert heard[keeper] == [News(due_at=run_at)]
    for listener in listeners:
        listener.close()
    ledger.close()


def test_a_ledger_in_no_folder_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "_PATH_LIMIT", 1000)
    with pytest.raises(CannotStart, match=f"There is no folder {tmp_path}/nowhere .*celeriac migrate"):
        folder_of(f"sqlite:///{tmp_path}/nowhere/ledger.db")
