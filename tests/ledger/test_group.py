"""The group commit: nobody is answered before the commit, a bad item spoils nobody, a full disk loses nothing."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.moves import (
    MESSAGE,
    accept,
    counted,
    kinds,
    running,
    select,
    submission,
    success,
    take,
)
from databases import on_sqlite

from celeriac.errors import IdempotencyMismatch, JobExists, LedgerFull, LedgerUnavailable
from celeriac.jobs import ClaimRequest, Kind, Note, Receipt, Start, Submission
from celeriac.ledger import ORDER, Group, Ledger, Transaction, claim, finish, note, start, submit

NOT_STORABLE = "\ud800"  # a lone surrogate is no UTF-8


@pytest.fixture
def group(ledger: Ledger) -> Iterator[Group]:
    group = Group(ledger, ORDER)
    yield group
    group.stop()


class Gate:
    """A move that holds up the group's transaction until it is opened, so that a batch gathers behind it."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, tx: Transaction, items: list[Any]) -> list[None]:
        self.entered.set()
        assert self.opened.wait(30)
        return [None] * len(items)


def held_up(ledger: Ledger, **options: Any) -> tuple[Group, Gate]:
    """A group whose thread is busy until the gate opens: what is added now makes one batch."""
    gate = Gate()
    group = Group(ledger, [gate, *ORDER], **options)
    group.add(gate, None, lambda answer: None)
    assert gate.entered.wait(30)
    return group, gate


class Answers:
    """The answers of a batch by place; fails if a callback is called twice."""

    def __init__(self) -> None:
        self.by_place: dict[int, Any] = {}

    def at(self, place: int) -> Callable[[Any], None]:
        def settle(answer: Any) -> None:
            assert place not in self.by_place, "called back twice"
            self.by_place[place] = answer

        return settle

    def kinds(self) -> list[str]:
        return [type(self.by_place[place]).__name__ for place in sorted(self.by_place)]


def add_all(group: Group, *submissions: Submission) -> Answers:
    answers = Answers()
    for place, item in enumerate(submissions):
        group.add(submit, item, answers.at(place))
    return answers


def test_a_lone_move_is_committed_and_answered(group: Group):
    receipt = group.do(submit, submission())

    assert isinstance(receipt, Receipt)
    assert kinds(group.ledger, receipt.id) == ["submitted"]
    assert (group.commits, group.moves) == (1, 1)


def test_an_error_of_a_move_is_raised_to_who_made_it(group: Group):
    id = accept(group.ledger)

    with pytest.raises(JobExists):
        group.do(submit, submission(id=id, task="other"))


def test_many_moves_share_one_commit(ledger: Ledger):
    group, gate = held_up(ledger)
    answers = add_all(group, *(submission() for _ in range(200)))
    assert answers.by_place == {}
    commits = []
    ledger.announce = commits.append

    gate.opened.set()
    group.stop()

    assert answers.kinds() == ["Receipt"] * 200
    assert len(commits) == 2  # the gate's and one for all
    assert (group.commits, group.moves) == (2, 201)
    assert counted(ledger) == {("queued", "default", "add"): 200}


def test_many_threads_are_all_answered_with_what_is_in_the_ledger(group: Group):
    receipts: list[Receipt] = []

    def work() -> None:
        for _ in range(25):
            receipts.append(group.do(submit, submission()))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    rows = dict(select(group.ledger, "SELECT id, key FROM jobs"))
    assert {receipt.id: receipt.key for receipt in receipts} == rows
    assert len(rows) == 300
    assert group.commits <= group.moves == 300
    counted(group.ledger)


def test_moves_of_one_batch_are_made_in_the_order_of_a_jobs_life(ledger: Ledger):
    job = running(ledger)
    group, gate = held_up(ledger)
    answers = Answers()
    group.add(finish, success(job), answers.at(2))
    group.add(note, Note(job.key, job.attempt, 1, Kind.LOG, {"message": "hello"}), answers.at(1))
    group.add(submit, submission(), answers.at(0))

    gate.opened.set()
    group.stop()

    assert answers.by_place[1] is True
    assert kinds(ledger, job.id) == ["submitted", "claimed", "started", "log", "succeeded"]


def test_a_batch_larger_than_one_commit_takes_is_split(ledger: Ledger):
    group, gate = held_up(ledger)
    answers = add_all(group, *(submission() for _ in range(1001)))

    gate.opened.set()
    group.stop()

    assert answers.kinds() == ["Receipt"] * 1001
    assert group.commits == 3
    counted(ledger)


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17])
@pytest.mark.parametrize("spot", ["first", "middle", "last"])
def test_a_bad_item_is_found_and_the_others_are_written(ledger: Ledger, size: int, spot: str):
    place = {"first": 0, "middle": size // 2, "last": size - 1}[spot]
    batch = [submission() for _ in range(size)]
    batch[place] = submission(args=NOT_STORABLE)
    group, gate = held_up(ledger)
    answers = add_all(group, *batch)

    gate.opened.set()
    group.stop()

    expected = ["Receipt"] * size
    expected[place] = "UnicodeEncodeError"
    assert answers.kinds() == expected
    assert {id for (id,) in select(ledger, "SELECT id FROM jobs")} == {
        item.id for number, item in enumerate(batch) if number != place
    }
    counted(ledger)


def test_many_bad_items_of_many_kinds_are_found(ledger: Ledger):
    job, other = running(ledger), running(ledger, queue="other")
    group, gate = held_up(ledger)
    answers = Answers()
    items = [
        (submit, submission(args=NOT_STORABLE)),
        (submit, submission(id="good")),
        (submit, submission(idempotency_key="k", fingerprint=None)),  # breaks a rule of the database
        (finish, success(job, NOT_STORABLE)),
        (finish, success(other)),
        (note, Note(job.key, job.attempt, 1, Kind.LOG, {"message": NOT_STORABLE})),
        (note, Note(job.key, job.attempt, 1, Kind.LOG, {"message": object()})),
        (submit, None),  # a fault of our own
    ]
    for place, (move, item) in enumerate(items):
        group.add(move, item, answers.at(place))

    gate.opened.set()
    group.stop()

    assert [isinstance(answers.by_place[place], Exception) for place in range(len(items))] == [
        True, False, True, True, False, True, True, True,
    ]  # fmt: skip
    assert kinds(ledger, job.id) == ["submitted", "claimed", "started"]
    assert kinds(ledger, other.id)[-1] == "succeeded"
    counted(ledger)


def test_a_move_that_breaks_in_an_unknown_way_does_not_end_the_group(ledger: Ledger):
    def broken(tx: Transaction, items: list[Any]) -> list[Any]:
        raise KeyError("a fault of our own")

    group = Group(ledger, [broken, *ORDER])

    with pytest.raises(KeyError):
        group.do(broken, 1)
    assert isinstance(group.do(submit, submission()), Receipt)
    group.stop()


def test_a_callback_that_fails_does_not_hinder_the_others(ledger: Ledger):
    group, gate = held_up(ledger)
    answers = Answers()

    def fails(_: Any) -> None:
        raise ZeroDivisionError

    group.add(submit, submission(), fails)
    group.add(submit, submission(), answers.at(1))
    gate.opened.set()
    group.stop()

    assert answers.kinds() == ["Receipt"]


def test_idempotency_holds_in_the_batch_that_others_share(ledger: Ledger):
    group, gate = held_up(ledger)
    answers = add_all(
        group,
        submission(idempotency_key="k", fingerprint="f"),
        submission(),
        submission(idempotency_key="k", fingerprint="f"),
        submission(idempotency_key="k", fingerprint="g"),
    )
    gate.opened.set()
    group.stop()

    first, _, again, other = (answers.by_place[place] for place in range(4))
    assert (again.id, again.replayed) == (first.id, True)
    assert isinstance(other, IdempotencyMismatch)
    assert counted(ledger) == {("queued", "default", "add"): 2}


def test_stop_writes_what_is_left_and_takes_no_more(ledger: Ledger):
    group, gate = held_up(ledger)
    answers = add_all(group, *(submission() for _ in range(50)))
    stopping = threading.Thread(target=group.stop)
    stopping.start()
    gate.opened.set()
    stopping.join()

    assert answers.kinds() == ["Receipt"] * 50
    with pytest.raises(LedgerUnavailable):
        group.add(submit, submission(), lambda answer: None)


def test_callbacks_are_delivered_in_the_callers_world(ledger: Ledger):
    delivered, threads = [], []
    group = Group(ledger, ORDER, deliver=delivered.append)
    group.add(submit, submission(), lambda answer: threads.append(threading.current_thread()))
    group.stop()

    assert threads == []
    for run in delivered:
        run()
    assert threads == [threading.main_thread()]


# A full disk


def limit_pages(ledger: Ledger, more: int | None) -> None:
    """Let the database grow by so many pages only; None lifts the limit. It holds for the write connection."""
    with ledger.transaction() as tx:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        limit = 2**30 if more is None else pages + more
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}")


LARGE = "x" * 100_000


def large() -> Submission:
    return submission(args=LARGE, message=MESSAGE, tags=("large",))


def tables(ledger: Ledger) -> dict[str, int]:
    names = ("jobs", "payloads", "events", "tags", "count_deltas")
    return {name: select(ledger, f"SELECT COUNT(*) FROM {name}")[0][0] for name in names}


@on_sqlite
def test_a_full_disk_is_told_to_all_and_nothing_is_half_written(ledger: Ledger):
    limit_pages(ledger, 5)
    group, gate = held_up(ledger)
    answers = add_all(group, *(large() for _ in range(20)))
    gate.opened.set()
    group.stop()

    assert answers.kinds() == ["LedgerFull"] * 20
    assert tables(ledger) == dict.fromkeys(tables(ledger), 0)


@on_sqlite
def test_the_ledger_works_again_once_there_is_room(ledger: Ledger):
    limit_pages(ledger, 5)
    with pytest.raises(LedgerFull):
        ledger.do(submit, large())
    assert counted(ledger) == {}

    limit_pages(ledger, None)

    assert ledger.do(submit, large()).key > 0
    assert counted(ledger) == {("queued", "default", "add"): 1}


@on_sqlite
def test_a_full_disk_still_lets_jobs_be_read(ledger: Ledger):
    id = accept(ledger)
    limit_pages(ledger, 0)
    with pytest.raises(LedgerFull):
        ledger.do(submit, large())

    assert kinds(ledger, id) == ["submitted"]


@on_sqlite
def test_a_patient_group_keeps_what_it_cannot_write_and_tries_again(ledger: Ledger, wait_until, caplog):
    limit_pages(ledger, 5)
    group = Group(ledger, ORDER, patient=True)
    answers = add_all(group, large())
    wait_until(lambda: "Trying again" in caplog.text, "the group tries again")
    assert answers.by_place == {}

    limit_pages(ledger, None)

    wait_until(lambda: answers.by_place, "the job is written")
    group.stop()
    assert answers.kinds() == ["Receipt"]
    assert counted(ledger) == {("queued", "default", "add"): 1}


@on_sqlite
def test_a_patient_group_gives_up_when_it_is_told_to_stop(ledger: Ledger, wait_until, caplog):
    limit_pages(ledger, 5)
    group = Group(ledger, ORDER, patient=True)
    answers = add_all(group, large())
    wait_until(lambda: "Trying again" in caplog.text, "the group tries again")

    group.stop()

    assert answers.kinds() == ["LedgerFull"]


# The promise "accepted is durable", and a group that breaks it


def unkept_promises(group_class: type[Group], ledger: Ledger) -> list[str]:
    """Submit around a full disk; return the ids that were acknowledged and are not in the ledger at that moment."""
    unkept = []

    def check(answer: Receipt | Exception) -> None:
        if isinstance(answer, Receipt) and not select(ledger, "SELECT 1 FROM jobs WHERE id = :id", id=answer.id):
            unkept.append(answer.id)

    group = group_class(ledger, ORDER)
    for item in [submission(), large(), submission()]:
        group.add(submit, item, check)
    group.stop()
    return unkept


class Hasty(Group):
    """Answers before the commit."""

    def _commit(self, batch: list[Any]) -> list[Any]:
        with self.ledger.transaction() as tx:
            answers = submit(tx, [item for _, item, _ in batch])
            for (_, _, callback), answer in zip(batch, answers, strict=True):
                callback(answer)
        return answers


@on_sqlite
def test_nobody_is_answered_before_the_commit(ledger: Ledger):
    assert unkept_promises(Group, ledger) == []
    limit_pages(ledger, 5)
    assert unkept_promises(Group, ledger) == []


def test_the_oracle_notices_an_answer_before_the_commit(ledger: Ledger):
    assert unkept_promises(Hasty, ledger) != []


def test_a_claim_waits_in_the_same_line(group: Group):
    ids = [accept(group.ledger) for _ in range(3)]
    jobs = group.do(claim, ClaimRequest("w", ("default",), '["add"]', 2))

    assert [job.id for job in jobs] == ids[:2]
    assert [job.id for job in take(group.ledger, 5)] == ids[2:]
    assert group.do(start, Start(jobs[0].key, jobs[0].attempt, 1)) is True


def test_answers_that_cannot_be_delivered_do_not_end_the_group(ledger: Ledger, wait_until, caplog):
    answers, broken = Answers(), [True]

    def deliver(call_back: Callable[[], None]) -> None:
        if broken:
            broken.clear()
            raise ZeroDivisionError
        call_back()

    group = Group(ledger, ORDER, deliver)
    group.add(submit, submission(), answers.at(0))
    wait_until(lambda: not broken, "the first batch")
    group.add(submit, submission(), answers.at(1))
    group.stop()

    assert list(answers.by_place) == [1]
    assert "could not be delivered" in caplog.text
