"""kill -9 of every kind of process at any time: everything accepted ends, once, within the promised times.

The last tests break a promise on purpose and expect the oracle to notice.
"""

import contextlib
import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import jobs_for_tests
import postgres
import psutil
import pytest
import servers
from databases import DATABASES
from instance import Instance, free_port, freeze, instance, program, until
from nursery import Process
from oracle import violations
from proxy import proxy
from sqlalchemy import text

from celeriac.failpoints import NAMES
from celeriac.states import State, is_final


@pytest.fixture(params=DATABASES)
def house(request, tmp_path, nursery):
    url = ""
    if request.param == "postgres":
        request.getfixturevalue("blank_postgres")
        url = postgres.server().create(f"house_{next(_numbers)}")
    with instance(tmp_path / "home", database_url=url, nursery=nursery) as made:
        yield made


_numbers = itertools.count()


def test_a_killed_worker_loses_no_job_and_runs_only_what_was_in_its_hands_again(house: Instance):
    house.keeper()
    house.worker("one")
    house.worker("two")
    ids = house.submit("wait", count=30, seconds=0.1)
    until(lambda: len(house.runs()) > 8, "some jobs to run")
    house.kill("one")
    jobs = house.ended(ids)

    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert len(house.runs()) - len(ids) <= 2  # what one worker of two slots had running
    assert violations(house.ledger, ids) == []


def test_two_of_every_process_share_one_ledger_and_survive_the_loss_of_one_each(house: Instance):
    house.keeper("leader")
    house.web("web")
    other = free_port()
    house.start("web2", "web", house.app, CELERIAC_PORT=str(other))
    house.worker("one")
    house.worker("two")
    house.keeper("standby")
    until(lambda: _answers(other), f"the second web process\n{house.log('web2')}")
    ports = itertools.cycle([house.port, other])

    def submit(number: int) -> str:
        """The same request to both: a lost answer asked for again elsewhere."""
        body = {"task": "wait", "args": {"seconds": 0.02}}
        headers = {"Authorization": f"Bearer {house.token}", "Idempotency-Key": f"k{number}"}
        answers = [
            httpx.post(f"http://127.0.0.1:{next(ports)}/api/v1/jobs", json=body, headers=headers) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [202, 202]
        [id] = {answer.json()["id"] for answer in answers}
        return id

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(submit, range(60)))
        for name in ("one", "leader", "web"):
            house.kill(name)
        ports = itertools.repeat(other)
        ids += pool.map(submit, range(60, 100))
    house.ended(ids)

    assert len(house.runs()) - 100 <= 2
    assert violations(house.ledger, ids) == []


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_workers_jobs_run_again_on_the_next_worker(house: Instance):
    house.keeper()
    house.worker("one", concurrency=1)
    ids = house.submit("wait", count=3, seconds=0.3)
    until(lambda: house.runs(), "the first to run")
    house.kill("one")
    house.worker("two", concurrency=1)
    house.ended(ids)

    assert violations(house.ledger, ids) == []


def test_a_worker_told_to_stop_gives_back_what_it_has_not_started_and_ends_what_it_has(house: Instance):
    house.worker("one", concurrency=1)
    ids = house.submit("wait", count=4, seconds=0.4)
    until(lambda: house.runs(), "the first to run")
    house.kill("one", signal.SIGTERM)

    states = [house.job(id).state for id in ids]
    assert states.count(State.SUCCEEDED) >= 1
    assert set(states) <= {State.SUCCEEDED, State.QUEUED}
    assert len(house.runs()) == states.count(State.SUCCEEDED)


def test_a_job_that_outlasts_the_shutdown_is_given_back_and_runs_again(house: Instance):
    house.worker("one", concurrency=1, CELERIAC_SHUTDOWN_SECONDS="0.5")
    [id] = house.submit("wait", seconds=3)
    until(lambda: house.job(id).started_at, "it to start")
    house.kill("one", signal.SIGTERM)
    assert house.job(id).state is State.QUEUED

    house.worker("two", concurrency=1)
    [job] = house.ended([id])
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)


def test_a_cancel_acknowledged_while_all_workers_are_down_holds(house: Instance):
    from celeriac.access import SYSTEM
    from celeriac.ledger import Asked, cancel

    cancelled, other = house.submit("add", x=1, y=1), house.submit("add", x=2, y=2)
    house.ledger.do(cancel, Asked(SYSTEM, cancelled[0]))
    house.worker()
    house.ended(other)

    assert house.runs() == ["add:2:2"]
    assert house.job(cancelled[0]).state is State.CANCELLED


def test_another_keeper_leads_when_the_leader_is_killed(house: Instance):
    from celeriac.ledger import nodes

    house.keeper("first")
    until(lambda: nodes.leader(house.ledger, "keeper"), "a leader")
    house.keeper("second")
    house.worker()
    house.kill("first")
    [id] = house.submit("flaky", failures=1)
    [job] = house.ended([id])

    assert job.state is State.SUCCEEDED
    assert nodes.leader(house.ledger, "keeper").term == 2


def test_the_default_settings_recover_within_the_promised_times(tmp_path, nursery):
    """A killed worker's job runs again within 15 s; another keeper leads within 10 s of the leader's death."""
    from celeriac.ledger import nodes

    slow = {f"CELERIAC_{name}_SECONDS": "" for name in ("BEAT", "LEASE", "LEADER")}
    with instance(tmp_path / "slow", nursery=nursery, **slow) as house:
        house.keeper("first")
        until(lambda: nodes.leader(house.ledger, "keeper"), "a leader")
        house.keeper("second")
        house.worker("victim", concurrency=1)
        house.worker("other", queues="elsewhere,default", concurrency=1)
        [busy, id] = house.submit("wait", count=2, seconds=1.5)
        until(lambda: len(house.runs()) == 2, "both to run")
        house.kill("victim")
        until(lambda: len(house.runs()) == 3, "the job to run again", 15)
        house.kill("first")
        until(lambda: nodes.leader(house.ledger, "keeper").term == 2, "another leader", 10)
        house.ended([busy, id])

        assert violations(house.ledger, [busy, id]) == []


def test_everything_acknowledged_over_http_is_there_when_the_web_process_is_killed(house: Instance):
    house.web()
    acknowledged = _submit_until_killed(house)

    assert len(acknowledged) > 20
    assert violations(house.ledger, acknowledged, ended=False) == []


def test_the_oracle_notices_an_answer_before_the_commit(house: Instance):
    house.web(app="faults.mutants:app", MUTANT="before_the_commit")
    acknowledged = _submit_until_killed(house)

    assert any(told.startswith("I1") for told in violations(house.ledger, acknowledged, ended=False))


def _submit_until_killed(house: Instance) -> list[str]:
    acknowledged: list[str] = []

    def submit() -> None:
        with house.http as http:
            try:
                while True:
                    acknowledged.append(http.post("/jobs", json={"task": "echo", "args": {"value": 1}}).json()["id"])
            except httpx.HTTPError:
                return

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 60, "answers")
    house.kill("web")
    for thread in threads:
        thread.join(30)
    return acknowledged


def _a_stopped_worker_comes_back(house: Instance, **environment: str) -> str:
    """Stop a worker for longer than its lease while its job runs; the job is rescued; then let it go on."""
    house.keeper()
    house.worker("old", concurrency=1, **environment)
    [id] = house.submit("wait", seconds=1)
    until(lambda: house.job(id).started_at, "it to start")
    freeze(house, house.processes["old"])
    until(lambda: house.job(id).state is State.QUEUED, "the rescue")
    os.killpg(house.processes["old"].pid, signal.SIGCONT)
    return id


def test_a_worker_that_was_given_up_is_fenced_when_it_comes_back(house: Instance):
    id = _a_stopped_worker_comes_back(house)
    house.ended([id])
    until(lambda: "attempt 1 is void" in house.log("old"), "the late outcome to be refused")

    assert violations(house.ledger, [id]) == []


def test_the_oracle_notices_a_missing_fence(house: Instance):
    id = _a_stopped_worker_comes_back(house, app="faults.mutants:app", MUTANT="without_the_fence")
    house.ended([id])

    assert any(told.startswith("I4") for told in violations(house.ledger, [id]))


def test_the_oracle_notices_a_claim_that_claims_nothing(house: Instance):
    house.worker("one", app="faults.mutants:app", MUTANT="without_the_claim")
    ids = house.submit("add", count=3, x=1, y=1)
    until(lambda: len(house.runs()) > 6, "jobs to run again and again")

    assert violations(house.ledger, ids, ended=False) != []


def steps(*kinds: str) -> list[str]:
    return [name for name, who in NAMES.items() if who in kinds]


@pytest.mark.parametrize("step", steps("any", "worker", "child"))
def test_a_success_commits_with_its_next_link_and_its_chord_part_or_not_at_all(house: Instance, step, monkeypatch):
    _a_canvas_survives(house, step, (1, 2, 4), monkeypatch)


@pytest.mark.parametrize("step", steps("sender", "consumer"))
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in servers.BROKERS]
)  # fmt: skip
def test_a_kill_at_any_step_of_a_hint_loses_nothing(name, step, tmp_path, nursery, monkeypatch):
    servers.needs("redis-server" if name == "redis" else "rabbitmq-server")
    broker = servers.redis_server() if name == "redis" else servers.rabbitmq()
    broker.forget("default")
    with instance(tmp_path / "home", nursery=nursery, CELERIAC_BROKER_URL=broker.url) as house:
        _a_canvas_survives(house, step, (1, 2), monkeypatch)


def _a_canvas_survives(house: Instance, step: str, times: tuple[int, ...], monkeypatch) -> None:
    """Kill the worker at one step after another of a chain that leads into a chord; each time a new one goes on."""
    house.keeper()
    with program(house, jobs_for_tests.app, monkeypatch):
        result = jobs_for_tests.a_chain_into_a_chord().delay()
    for time in times:
        process = house.worker(f"victim{time}", concurrency=1, wait=False, CELERIAC_FAILPOINT=f"{step}:{time}")
        if step == "child-after-run":
            until(partial(_has_run, house, time), "the child to get there")
            house.kill(f"victim{time}")
        else:  # a sender that connects late sends what it has all at once, and none is left for a later one
            late = time > 1 and step in steps("sender")
            until(partial(_ended, house, process, result.id if late else None), "the kill", 30)
            assert process.poll() in (-signal.SIGKILL, None), house.log(f"victim{time}")
            house.kill(f"victim{time}")
    house.worker("last")
    [job] = house.ended([result.id])

    assert job.result == "1009"
    with house.ledger.reading() as connection:
        tasks = sorted(connection.execute(text("SELECT task FROM jobs")).scalars())
    assert tasks == ["add"] * 5 + ["total"]
    assert violations(house.ledger, [result.id]) == []


def _ended(house: Instance, process: Process, id: str | None) -> bool:
    return process.poll() is not None or (id is not None and is_final(house.state(id)))


def _has_run(house: Instance, times: int) -> bool:
    return len(house.runs()) >= times


def test_a_job_that_a_child_has_been_given_when_its_worker_is_told_to_stop_runs_once(house: Instance):
    worker = house.worker("one", concurrency=1, CELERIAC_SHUTDOWN_SECONDS="30")
    child = psutil.Process(worker.pid).children()[0]
    child.suspend()
    [id] = house.submit("add", x=1, y=1)
    until(lambda: house.job(id).state is State.RUNNING, "it to be in the child's pipe")
    worker.send_signal(signal.SIGTERM)
    with contextlib.suppress(AssertionError):  # long enough for a worker that would give it back
        until(lambda: "given-back" in house.kinds(id), "nothing", 1)
    child.resume()
    assert worker.wait(30) == 0

    assert (house.job(id).state, house.runs()) == (State.SUCCEEDED, ["add:1:1"])


@pytest.mark.parametrize("step", ["before-commit", "after-commit"])
def test_a_request_whose_answer_was_lost_makes_one_job_when_it_is_sent_again(house: Instance, step):
    port = free_port()
    dying = house.start("dying", "web", house.app, CELERIAC_PORT=str(port), CELERIAC_FAILPOINT=f"{step}:6")
    house.web("other")
    until(lambda: _answers(port), f"the web process\n{house.log('dying')}")
    with house.http as http:
        lost = _submit_until_lost(http, f"http://127.0.0.1:{port}/api/v1/jobs")
        assert dying.wait(30) == -signal.SIGKILL
        again = [_submit(http, "/jobs", lost) for _ in range(2)]

    with house.ledger.reading() as connection:
        ids = connection.execute(text("SELECT id FROM jobs")).scalars().all()
    assert len(ids) == lost
    assert len(set(again)) == 1
    assert set(again) <= set(ids)


def _submit_until_lost(http: httpx.Client, address: str) -> int:
    """Return the key of the first request without an answer."""
    for key in itertools.count(1):
        try:
            _submit(http, address, key)
        except httpx.HTTPError:
            return key
    raise AssertionError("for ever")


def _submit(http: httpx.Client, address: str, key: int) -> str:
    body = {"task": "echo", "args": {"value": 1}}
    answer = http.post(address, json=body, headers={"Idempotency-Key": f"key-{key}"})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


@pytest.mark.postgres
def test_a_worker_cut_off_from_the_ledger_is_fenced_and_works_on_when_it_is_back(tmp_path, nursery, request):
    request.getfixturevalue("blank_postgres")
    url = postgres.server().create("house_cut_off")
    with instance(tmp_path / "home", database_url=url, nursery=nursery) as house, proxy(postgres.server().port) as way:
        house.keeper()
        house.worker("cut-off", concurrency=1, CELERIAC_DATABASE_URL=way.before(url))
        [id] = house.submit("wait", seconds=1)
        until(lambda: house.job(id).started_at, "it to start")
        way.half_open()
        house.worker("other", concurrency=1)
        [job] = house.ended([id])
        assert job.worker.startswith("other")
        house.kill("other")
        way.heal()
        until(lambda: "attempt 1 is void" in house.log("cut-off"), "the late outcome to be refused")
        later = house.submit("add", x=1, y=1)
        house.ended(later)

        assert violations(house.ledger, [id, *later]) == []
