"""The client, sync and async, against a real server and against servers that misbehave."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from web.house import House, house, unique

from celeriac.client import AsyncClient, Client, ClientError, Unreachable, clients, submission
from celeriac.client import calls as module
from celeriac.errors import CannotStart


@pytest.fixture(scope="module")
def served(blank_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(blank_sqlite, tmp_path_factory.mktemp("client")) as made:
        yield made


@pytest.fixture
def client(served: House) -> Iterator[Client]:
    with Client(served.url, served.token()) as made:
        yield made


def test_a_job_is_submitted_watched_and_waited_for(client: Client, served: House):
    queue = unique("queue")
    job = client.submit("add", {"x": 1}, queue=queue, tags=["t"], idempotency_key=None)
    threading.Thread(target=served.end, args=[queue]).start()

    assert client.wait(job["id"], timeout=60)["result"] == 42
    assert client.job(job["id"])["state"] == "succeeded"
    assert [event["kind"] for event in client.events(job["id"])][-1] == "succeeded"
    assert [queue for queue in client.queues() if queue["name"] == job["queue"]]
    assert client.workers() == []
    assert "add" in [task["name"] for task in client.tasks()]


def test_a_batch_is_accepted_whole_and_tells_how_far_it_is(client: Client):
    queue = unique("queue")
    made = client.submit_batch([submission("echo", [n], {"queue": queue}) for n in range(3)])
    jobs = list(client.jobs(batch=made["batch"]["id"]))

    assert [job["id"] for job in jobs] == [job["id"] for job in made["jobs"]][::-1]
    assert client.batch(made["batch"]["id"])["size"] == 3
    with pytest.raises(ClientError, match="/jobs/1/task"):
        client.submit_batch([submission("echo"), submission("nothing")])


def test_all_of_a_filter_is_cancelled_by_an_operation(client: Client):
    queue = unique("queue")
    client.submit("echo", queue=queue)
    operation = client.cancel_all(queue=[queue])

    assert (operation["kind"], operation["filter"]["queue"]) == ("cancel", [queue])
    assert client.operation(operation["id"])["id"] == operation["id"]
    with pytest.raises(ClientError, match="all"):
        client.retry_all()
    assert client.retry_all(everything=True)["kind"] == "retry"


def test_a_queue_is_paused_and_resumed_whatever_its_name(client: Client):
    name = unique("a/b c")

    assert [client.pause(name)["paused"], client.resume(name)["paused"]] == [True, False]


def test_the_whole_is_told_in_numbers(client: Client):
    assert {"counts", "queues", "endings"} <= set(client.stats(minutes=5))


def test_a_wait_that_takes_too_long_says_so(client: Client):
    with pytest.raises(TimeoutError, match=r"did not end within 0\.05 s"):
        client.wait(client.submit("echo", queue=unique("queue"))["id"], timeout=0.05)


def test_jobs_are_yielded_page_after_page(client: Client):
    queue = unique("queue")
    made = [client.submit("echo", [n], queue=queue)["id"] for n in range(5)]

    assert [job["id"] for job in client.jobs(queue=queue, state=["queued", "running"], limit=2)] == made[::-1]


def test_a_job_is_cancelled_and_sent_through_again(client: Client):
    id = client.submit("echo", queue=unique("queue"))["id"]

    assert [client.cancel(id)["state"], client.retry(id)["state"]] == ["cancelled", "queued"]


def test_a_problem_is_raised_with_all_it_says(client: Client):
    with pytest.raises(ClientError) as caught:
        client.submit("add", {"x": "1", "z": 2})

    error = caught.value
    assert (error.status, error.code) == (422, "invalid-arguments")
    assert {fault.path for fault in error.faults} == {"/args/x", "/args/z"}
    assert "/args/x" in str(error)


def test_a_key_of_ones_own_makes_a_submit_repeatable(client: Client):
    key = unique("key")

    assert client.submit("echo", idempotency_key=key)["id"] == client.submit("echo", idempotency_key=key)["id"]


def test_the_async_client_does_the_same(served: House):
    async def run() -> None:
        queue = unique("queue")
        async with AsyncClient(served.url, served.token()) as client:
            id = (await client.submit("echo", {"value": 1}, queue=queue))["id"]
            with pytest.raises(TimeoutError):
                await client.wait(id, timeout=0.01)
            await asyncio.to_thread(served.end, queue)
            assert (await client.wait(id, timeout=60))["result"] == 42
            assert [job["id"] async for job in client.jobs(queue=queue)] == [id]
            assert len([event async for event in client.events(id)]) == 4
            assert (await client.job(id))["id"] == id
            again = (await client.submit("echo", queue=queue))["id"]
            assert [(await client.cancel(again))["state"], (await client.retry(again))["state"]] == [
                "cancelled",
                "queued",
            ]
            assert (await client.workers(), "add" in str(await client.tasks())) == ([], True)
            assert await client.queues()
            with pytest.raises(ClientError, match="no job"):
                await client.job("nothing")

    asyncio.run(run())


def test_both_clients_have_the_same_methods():
    def methods(kind: type) -> dict[str, list[str]]:
        named = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in named if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


# Where and as whom


def test_address_and_token_come_from_the_home_folder(served: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_HOME", str(served.settings.home))
    monkeypatch.setenv("CELERIAC_PORT", str(served.port))
    served.settings.token_path.write_text(served.token() + "\n")

    with Client() as client:
        assert "add" in [task["name"] for task in client.tasks()]


def test_address_and_token_come_from_the_environment(served: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_URL", served.url)
    monkeypatch.setenv("CELERIAC_TOKEN", served.token())

    with Client() as client:
        assert "add" in [task["name"] for task in client.tasks()]


def test_a_missing_token_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_HOME", str(tmp_path))

    with pytest.raises(CannotStart, match="celeriac dev"):
        Client()


# Servers that misbehave

Answer = Callable[[BaseHTTPRequestHandler], None]


class Rogue:
    """A server that does what a test tells it: one answer after the other, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.keys: list[str | None] = []
        rogue = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                rogue.keys.append(self.headers.get("Idempotency-Key"))
                answers[min(len(rogue.keys), len(answers)) - 1](self)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> "Rogue":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def say(status: int, body: str = "{}", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


@pytest.fixture
def pauses(fake_clock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a client makes; each passes at once."""
    made: list[float] = []

    def sleep(seconds: float) -> None:
        made.append(seconds)
        fake_clock.advance(seconds)

    async def async_sleep(seconds: float) -> None:
        sleep(seconds)

    monkeypatch.setattr(clients, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(clients, "asyncio", SimpleNamespace(sleep=async_sleep))
    return made


@pytest.mark.parametrize("trouble", [hang_up, say(429), say(502), say(503), say(504)])
def test_a_submit_is_sent_again_with_the_same_key_until_it_is_answered(pauses, trouble: Answer):
    with Rogue(trouble, trouble, say(202, '{"id": "1"}')) as rogue, Client(rogue.url, "t") as client:
        assert client.submit("echo") == {"id": "1"}
        assert (len(rogue.keys), len(set(rogue.keys)), rogue.keys[0] is None) == (3, 1, False)


def test_what_may_not_happen_twice_is_not_sent_twice():
    with Rogue(hang_up) as rogue, Client(rogue.url, "t") as client:
        with pytest.raises(Unreachable):
            client.retry("1")
        assert len(rogue.keys) == 1


def test_what_may_have_been_done_is_not_asked_for_twice(pauses):
    uncertain = say(503, '{"code": "ledger-uncertain", "title": "", "detail": ""}', Retry_After="1")
    with Rogue(say(503), uncertain) as rogue, Client(rogue.url, "t") as client:
        with pytest.raises(ClientError):
            client.cancel("1")
        assert len(rogue.keys) == 2


def test_a_submit_of_which_the_ledger_does_not_know_is_repeated(pauses):
    uncertain = say(503, '{"code": "ledger-uncertain", "title": "", "detail": ""}')
    with Rogue(uncertain, say(202, '{"id": "1"}')) as rogue, Client(rogue.url, "t") as client:
        assert client.submit("echo") == {"id": "1"}


@pytest.mark.parametrize("patience", [7.0, 30.0])
def test_a_server_that_never_answers_is_given_up_when_the_time_is_over(pauses, patience: float):
    with Rogue(hang_up) as rogue, Client(rogue.url, "t", patience) as client, pytest.raises(Unreachable):
        client.job("1")
    assert patience - module.PAUSE_SECONDS_MOST <= sum(pauses) <= patience


def test_a_client_without_patience_asks_once(pauses):
    with Rogue(say(503)) as rogue, Client(rogue.url, "t", 0) as client:
        with pytest.raises(ClientError):
            client.submit("echo")
        assert len(rogue.keys) == 1


def test_the_async_client_has_the_same_patience(pauses):
    async def run(url: str) -> None:
        async with AsyncClient(url, "t", 7.0) as client:
            assert await client.submit("echo") == {"id": "1"}
            with pytest.raises(Unreachable):
                await client.job("1")

    with Rogue(say(503, Retry_After="2"), say(202, '{"id": "1"}'), hang_up) as rogue:
        asyncio.run(run(rogue.url))
    assert pauses[0] > 2
    assert 2 <= sum(pauses[1:]) <= 7


def test_nobody_is_asked_again_before_the_time_he_named(pauses):
    with Rogue(say(503, Retry_After="9"), say(200, '{"queues": []}')) as rogue, Client(rogue.url, "t") as client:
        client.queues()
    assert 9 < pauses[0] < 10


def test_whoever_names_a_time_beyond_the_patience_is_not_asked_again(pauses):
    with Rogue(say(429, Retry_After="31")) as rogue, Client(rogue.url, "t") as client:
        with pytest.raises(ClientError):
            client.queues()
        assert (len(rogue.keys), pauses) == (1, [])


def test_clients_that_failed_together_do_not_come_back_together(fake_clock):
    calls = [module.Patience(module.job("1"), 30) for _ in range(100)]
    first = {call.pause(httpx.ConnectError("refused")) for call in calls}
    second = {call.pause(httpx.ConnectError("refused")) for call in calls}

    assert (len(first), len(second)) == (100, 100)
    assert max(first) <= min(second) * 1.01


@pytest.mark.parametrize("body", ["<h1>Bad gateway</h1>", "[]", '{"code": 1}', "null", '"text"'])
def test_an_answer_that_is_not_of_celeriac_is_told(body: str):
    with (
        Rogue(say(502, body)) as rogue,
        Client(rogue.url, "t", 0) as client,
        pytest.raises(ClientError, match="answered 502"),
    ):
        client.queues()


def test_a_server_that_is_not_there_is_told():
    with Client("http://127.0.0.1:1", "t", 0) as client, pytest.raises(Unreachable, match="Is it running") as caught:
        client.tasks()
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
