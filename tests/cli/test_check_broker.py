"""`celeriac check` at brokers: each fault of a real server is found by its name, and nothing is changed by looking."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import amqp
import httpx
import pytest
from instance import free_port
from servers import RabbitMQ, Redis, private

from celeriac.broker.rabbitmq_facts import RabbitFacts
from celeriac.cli.checks import rabbitmq as judged
from celeriac.cli.checks import redis as judged_redis
from celeriac.cli.checks.cargo import HINTS, Cargo
from celeriac.jobs import new_id
from cli.test_check import findings

Found = dict[str, list[tuple[str, str]]]
Check = Callable[..., Found]

OBSERVED = """
import celery
import celeriac

app = celeriac.attach(celery.Celery("shop", broker={broker!r}, backend={broker!r}, set_as_current=False))


@app.task(name="sell", acks_late=True, shared=False)
def sell(pieces): ...
"""


@pytest.fixture
def check(celeriac, monkeypatch: pytest.MonkeyPatch) -> Check:
    def look(url: str = "", *words: str) -> Found:
        if url:
            monkeypatch.setenv("CELERIAC_BROKER_URL", url)
        result = celeriac("check", *words, "--json")
        assert not any(secret in result.output for secret in ("guest:guest", "hunter2"))
        return findings(result)

    return look


@pytest.fixture
def observed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes an observed app with this broker; returns its name for the command line."""

    def make(broker: str, configuration: str = "") -> str:
        name = f"shop_{new_id().replace('-', '')}"
        (folder / f"{name}.py").write_text(OBSERVED.format(broker=broker) + configuration)
        monkeypatch.syspath_prepend(str(folder))
        return f"{name}:app"

    return make


def about(found: Found, kind: str) -> dict[str, str]:
    """The levels of the findings about a kind of broker."""
    return {name: lines[0][0] for name, lines in found.items() if name.startswith(kind)}


# Redis


def test_a_redis_in_good_order_is_told_so_in_ten_ways_at_least(check: Check):
    with private(Redis, "--appendfsync", "everysec") as server:
        found = check(server.url)

        assert set(about(found, "redis-").values()) == {"fine"}
        assert len(about(found, "redis-")) >= 10
        assert found["broker"][0][1] == f"redis://127.0.0.1:{server.port}/0 answers (CELERIAC_BROKER_URL)"
        with contextlib.closing(server.client()) as client:
            assert client.dbsize() == 0


def told(server: Redis, check: Check, name: str, *commands: str) -> tuple[str, str]:
    """Run commands on the server, and return what is then found under a name."""
    with contextlib.closing(server.client()) as client:
        for command in commands:
            client.execute_command(*shlex.split(command))
    [finding] = check(server.url)[f"redis-{name}"]
    return finding


@pytest.mark.parametrize(
    ("name", "commands", "level", "remedy"),
    [
        ("eviction", ["CONFIG SET maxmemory-policy allkeys-lru"], "warning", "Set noeviction"),
        ("persistence", ["CONFIG SET appendonly no", "CONFIG SET save ''"], "warning", "keeps nothing on disk"),
        ("persistence", ["CONFIG SET appendonly no", "CONFIG SET save '60 100'"], "warning", "saves only now and then"),
        ("fsync", [], "warning", "Set everysec"),
        ("memory", ["CONFIG SET maxmemory 1mb"], "error", "a full Redis takes nothing"),
        ("role", ["REPLICAOF 127.0.0.1 1"], "error", "Name its master, 127.0.0.1:1"),
        ("sharing", ["SET session:1 x"], "warning", "1 keys in this database are of something else"),
        (
            "sharing",
            ["SELECT 3", "SET cache x", "SELECT 0", "LPUSH celeriac:held:x y"],
            "warning",
            "db0, db3 have keys",
        ),
        ("access", ["CONFIG SET protected-mode no"], "warning", "Set requirepass"),
        ("idle", ["CONFIG SET timeout 5"], "warning", "Set timeout 0"),
    ],
)
def test_a_fault_of_a_redis_is_found_by_name(check: Check, fresh_redis: Redis, name, commands, level, remedy):
    found = told(fresh_redis, check, name, *commands)

    assert found[0] == level
    assert remedy in found[1]


@pytest.fixture(scope="module")
def one_redis() -> Iterator[Redis]:
    with private(Redis) as server:
        yield server


@pytest.fixture
def fresh_redis(one_redis: Redis) -> Redis:
    """A Redis as it starts."""
    with contextlib.closing(one_redis.client()) as client:
        client.replicaof("NO", "ONE")
        for name, value in {
            "maxmemory-policy": "noeviction", "maxmemory": "0", "appendonly": "yes", "save": "", "timeout": "0",
            "protected-mode": "yes",
        }.items():  # fmt: skip
            client.config_set(name, value)
        client.flushall()
    return one_redis


def test_a_cluster_is_an_error(check: Check):
    with private(Redis, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        [(level, message)] = check(server.url)["redis-cluster"]

    assert (level, "it is a cluster" in message) == ("error", True)


def test_a_redis_that_asks_for_a_password_is_fine_with_it_and_an_error_without(check: Check):
    with private(_Closed) as server:
        with_it = check(f"redis://:hunter2@127.0.0.1:{server.port}/0")
        without = check(server.url)

    assert with_it["redis-access"] == [("fine", "it asks for a password")]
    [(level, message)] = without["broker"]
    assert (level, "uthentication required" in message) == ("error", True)
    assert about(without, "redis-") == {}


class _Closed(Redis):
    """A Redis that asks for a password."""

    def __init__(self) -> None:
        super().__init__("--requirepass", "hunter2")

    def client(self):
        import redis

        return redis.Redis(port=self.port, password="hunter2", socket_timeout=10)


def test_a_redis_that_tells_no_configuration_is_judged_by_what_it_tells(check: Check):
    with private(Redis, "--rename-command", "CONFIG", "") as server:
        found = check(server.url)

    assert "cannot be seen from here" in found["redis-fsync"][0][1]
    assert set(about(found, "redis-").values()) == {"fine"}


@pytest.mark.parametrize("version", ["6.0.16", "5.0", "2", ""])
def test_an_old_redis_is_an_error(version: str):
    facts = type("Old", (), {"info": {"redis_version": version}})()

    [(level, message)] = judged_redis.version(facts, HINTS)
    assert (level, "6.2 is the oldest" in message) == ("error", True)


# RabbitMQ


@contextlib.contextmanager
def channel(server: RabbitMQ) -> Iterator[amqp.Channel]:
    with amqp.Connection(f"127.0.0.1:{server.port}") as connection:
        yield connection.channel()


class Managed(RabbitMQ):
    """A RabbitMQ with its management API."""

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].")

    @property
    def api(self) -> str:
        return f"http://guest:guest@127.0.0.1:{self.management_port}/api"

    def put(self, path: str, **body: object) -> None:
        """Change something by the management API, which is faster than rabbitmqctl."""
        url = f"http://127.0.0.1:{self.management_port}/api{path}"
        httpx.put(url, json=body, auth=("guest", "guest"), trust_env=False, timeout=30).raise_for_status()


@pytest.fixture(scope="module")
def managed() -> Iterator[Managed]:
    with private(Managed) as server:
        yield server


@pytest.fixture
def api(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tells the check where the management API is; without this it is not found."""
    monkeypatch.setenv("CELERIAC_BROKER_MANAGEMENT_URL", managed.api)
    return managed.api


def test_a_rabbitmq_in_good_order_is_told_so_in_ten_ways_at_least(check: Check, managed: Managed, api: str):
    found = check(managed.url, "celeriac.demo.tasks:app")

    assert set(about(found, "rabbitmq-").values()) == {"fine"}
    assert len(about(found, "rabbitmq-")) >= 10
    assert found["rabbitmq-management"] == [("fine", "the management API answers")]
    assert "2 are made when first used" in found["rabbitmq-queues"][0][1]
    with channel(managed) as opened, pytest.raises(amqp.NotFound):
        opened.queue_declare("small", passive=True)


def test_what_amqp_does_not_tell_is_said_to_be_unseen_and_no_fault(check: Check, managed: Managed):
    found = check(managed.url)

    assert "cannot be seen from here" in found["rabbitmq-management"][0][1]
    assert set(about(found, "rabbitmq-").values()) == {"fine"}
    assert {"rabbitmq-policies", "rabbitmq-nodes"} & set(found) == set()


def test_a_classic_queue_is_found_and_left_as_it_is(check: Check, managed: Managed):
    with channel(managed) as opened:
        opened.queue_declare("small", durable=True, auto_delete=False)
        opened.queue_declare("large", durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        [(level, message)] = check(managed.url, "celeriac.demo.tasks:app")["rabbitmq-queues"]
        assert opened.queue_declare("small", durable=True, auto_delete=False)
        opened.queue_delete("small")
        opened.queue_delete("large")

    assert (level, message.startswith("no quorum queues: small. ")) == ("warning", True)


def test_a_queue_that_forgets_is_found_by_its_policy_and_its_arguments(check: Check, managed: Managed, api: str):
    with channel(managed) as opened:
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2}
        opened.queue_declare("small", durable=True, auto_delete=False, arguments=arguments)
        definition = {"message-ttl": 1000, "max-length": 10}
        managed.put("/policies/%2F/ttl", pattern="^sm", definition=definition, priority=1)
        managed.put("/policies/%2F/none", pattern=".*", definition={"expires": 99}, priority=0)
        found = check(managed.url, "celeriac.demo.tasks:app")
        opened.queue_delete("small")

    assert {found[f"rabbitmq-{name}"][0][0] for name in ("policies", "deliveries", "queues")} == {"warning"}
    assert "(small: message-ttl 1000; small: max-length 10)" in found["rabbitmq-policies"][0][1]
    assert "small drops hints" in found["rabbitmq-deliveries"][0][1]
    assert "x-delivery-limit" in found["rabbitmq-queues"][0][1]


def test_an_alarm_is_an_error_without_the_management_api_too(check: Check, managed: Managed):
    managed.alarm(True)
    try:
        [(level, message)] = check(managed.url)["rabbitmq-alarms"]
    finally:
        managed.alarm(False)

    assert (level, "takes no messages now" in message) == ("error", True)


def test_a_user_who_may_not_make_queues_is_told(check: Check, managed: Managed):
    managed.put("/users/clerk", password="hunter2", tags="")
    managed.put("/permissions/%2F/clerk", configure="^nothing$", write=".*", read=".*")
    [(level, message)] = check(f"amqp://clerk:hunter2@127.0.0.1:{managed.port}//")["rabbitmq-permissions"]
    [(wrong, _)] = check(f"amqp://clerk:hunter3@127.0.0.1:{managed.port}//")["broker"]

    assert (level, "set_permissions -p VHOST clerk" in message) == ("warning", True)
    assert wrong == "error"


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_broker_that_is_not_there_is_an_error_told_once(check: Check, url: str):
    found = check(url)

    [(level, message)] = found["broker"]
    assert (level, "cannot be used" in message, "Is it running" in message) == ("error", True, True)
    assert {**about(found, "redis-"), **about(found, "rabbitmq-")} == {}


def facts(**changes) -> RabbitFacts:
    told = {
        "version": "4.0.2", "kinds": {"small": "quorum"}, "refused": None, "confirms": True, "seconds": 0.001,
        "user": "celeriac", "near": False, "nodes": [{"name": "one", "running": True}], "queues": [],
    }  # fmt: skip
    return RabbitFacts(**{**told, **changes})


def level(check, facts: RabbitFacts, cargo: Cargo = HINTS) -> str:
    return next(check(facts, cargo))[0]


def test_guest_is_for_this_machine_only():
    assert level(judged.user, facts(user="guest")) == "warning"
    assert level(judged.user, facts(user="guest", near=True)) == level(judged.user, facts()) == "fine"


def test_an_alarm_of_any_node_is_an_error():
    raised = [{"name": "one"}, {"name": "two", "disk_free_alarm": True}]

    assert level(judged.alarms, facts()) == "fine"
    assert next(judged.alarms(facts(nodes=raised), HINTS))[1].startswith("it takes no messages now (two: disk_free")


def test_a_single_node_weighs_more_when_it_carries_jobs():
    assert level(judged.nodes, facts()) == "fine"
    assert level(judged.nodes, facts(), Cargo("jobs", 60)) == "warning"
    cut = [{"name": "one", "running": True}, {"name": "two", "running": False}]
    assert level(judged.nodes, facts(nodes=cut)) == "warning"


def test_consumer_timeout_is_held_against_the_longest_time_limit():
    policy = [{"name": "small", "arguments": {"x-consumer-timeout": 60_000}}]

    assert level(judged.timeout, facts()) == level(judged.timeout, facts(queues=policy)) == "fine"
    tiny = [{"name": "small", "arguments": {"x-consumer-timeout": 10_000}}]
    assert level(judged.timeout, facts(queues=tiny)) == "warning"
    assert level(judged.timeout, facts(), Cargo("jobs", 1800)) == "fine"
    assert level(judged.timeout, facts(), Cargo("jobs", 1801)) == "warning"
    assert level(judged.timeout, facts(queues=policy), Cargo("jobs", 61)) == "warning"
    assert level(judged.timeout, facts(), Cargo("jobs", float("inf"))) == "warning"


@pytest.mark.parametrize("version", ["3.8.9", "", "nonsense"])
def test_an_old_rabbitmq_is_a_warning(version: str):
    assert level(judged.version, facts(version=version)) == "warning"


# An observed app


def test_an_observed_apps_redis_and_its_own_settings_are_looked_at(check: Check, observed, fresh_redis: Redis):
    with contextlib.closing(fresh_redis.client()) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    found = check("", observed(fresh_redis.url))

    assert found["redis-eviction"][0][1].endswith("throws jobs away. Set noeviction")
    assert about(found, "celery-") == {
        "celery-visibility": "warning", "celery-acknowledgement": "warning", "celery-prefetch": "warning",
        "celery-results": "warning", "celery-tracking": "warning",
    }  # fmt: skip
    assert "no time limit" in found["celery-visibility"][0][1]
    assert "sell" in found["celery-acknowledgement"][0][1]


CAREFUL = """
app.conf.update(
    broker_transport_options={"visibility_timeout": 7200, "confirm_publish": True}, task_time_limit=3600,
    worker_prefetch_multiplier=1, task_track_started=True, task_reject_on_worker_lost=True,
)
"""


def test_a_careful_observed_app_has_no_fault(check: Check, observed, fresh_redis: Redis):
    found = check("", observed(fresh_redis.url, CAREFUL))

    assert set(about(found, "celery-").values()) == {"fine"}


def test_an_observed_app_on_rabbitmq_is_held_against_its_consumer_timeout(check: Check, observed, managed, api: str):
    found = check("", observed(managed.url))

    assert "without a time limit is run again" in found["rabbitmq-timeout"][0][1]
    assert found["rabbitmq-nodes"][0][0] == "warning"
    assert found["celery-confirms"][0][0] == "warning"


def test_an_observed_app_with_a_broker_of_another_kind_is_left_alone(check: Check, observed):
    found = check("", observed("memory://", "\napp.conf.result_backend = None\n"))

    assert "cannot be looked at" in found["broker"][0][1]
    assert {**about(found, "redis-"), **about(found, "rabbitmq-")} == {}


def test_without_a_broker_nothing_is_said_of_one(check: Check):
    found = check()

    assert found["broker"] == [("fine", "none: the ledger is the queue")]
    assert {**about(found, "redis-"), **about(found, "rabbitmq-"), **about(found, "celery-")} == {}
