"""Filling a ledger: a month of jobs as a busy instance leaves them, made by the database itself.

Fifty tasks in five queues, two hundred owners of which one has two fifths of all, five of a hundred failed, one
cancelled, tags on a tenth, four events each; the newest few thousand still wait or run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

from celeriac.ledger import Ledger, Transaction
from celeriac.ledger.schema import metadata

STEP = 250_000
LIVE = 4_000
MONTH = 30 * 86_400_000_000
TABLES = ("jobs", "payloads", "events", "tags")

_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT LOW UNION ALL SELECT n + 1 FROM numbers WHERE n < HIGH)",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(CAST(LOW AS bigint), HIGH))",
}
_HEX = {"sqlite": "printf('%0{0}x', {1})", "postgresql": "lpad(to_hex({1}), {0}, '0')"}


def _dice(factor: int, sides: int) -> str:
    """Return SQL for a throw of dice that is always the same for a number."""
    return f"(n * {factor} % 4294967296 / 65536 % {sides})"


_ROLLS = f"""
 SELECT n, {_dice(2654435761, 50)} AS t1, {_dice(2246822519, 50)} AS t2, {_dice(3266489917, 100)} AS outcome,
 {_dice(668265263, 10)} AS elsewhere, {_dice(374761393, 1000)} AS who, {_dice(2869860233, 10000)} AS mark,
 NOW - (TOTAL - n) * AGE AS at FROM numbers"""
_FACTS = f"""
 SELECT n, at, mark, CASE WHEN t1 < t2 THEN t1 ELSE t2 END AS task, elsewhere, who,
 CASE WHEN n > TOTAL - {LIVE} THEN
  CASE WHEN outcome < 80 THEN 'queued' WHEN outcome < 82 THEN 'running' WHEN outcome < 95 THEN 'scheduled'
  ELSE 'retrying' END
 WHEN outcome < 5 THEN 'failed' WHEN outcome < 6 THEN 'cancelled' ELSE 'succeeded' END AS state FROM ({_ROLLS}) AS r"""
_ID = "substr(STAMP, 1, 8) || '-' || substr(STAMP, 9, 4) || '-7' || substr(SALT, 1, 3) || '-8000-' || SALT"
_JOBS = f"""
INSERT INTO jobs (key, id, task, state, queue, owner, attempt, executions, number, args, result, error_code, error_type,
 error_message, tags, created_at, run_at, claimed_at, started_at, finished_at, worker)
NUMBERS SELECT n, {_ID}, 'shop.task_' || task, state,
 'queue-' || CASE WHEN elsewhere = 0 THEN (task + 1) % 5 ELSE task % 5 END,
 CASE WHEN who < 400 THEN 'big' ELSE 'owner-' || (who % 199) END, 1, 1, 4, '{{"order":' || n || ',"customer":"c"}}',
 CASE WHEN state = 'succeeded' THEN '{{"total":' || mark || '}}' END,
 CASE WHEN state = 'failed' THEN 'raised' END,
 CASE WHEN state = 'failed' THEN CASE WHEN mark % 50 = 0 THEN 'PaymentRefused' ELSE 'ValueError' END END,
 CASE WHEN state = 'failed' THEN 'It cannot be.' END,
 CASE WHEN mark < 1000 THEN '["tag-' || (mark % 40) || '"]' END, at,
 CASE WHEN state IN ('scheduled', 'retrying') THEN at + 3600000000 END,
 CASE WHEN state = 'queued' OR state = 'scheduled' THEN NULL ELSE at + 1000 END,
 CASE WHEN state = 'queued' OR state = 'scheduled' THEN NULL ELSE at + 2000 END,
 CASE WHEN state IN ('succeeded', 'failed', 'cancelled') THEN at + 1000000 + mark * 100 END,
 CASE WHEN state = 'queued' OR state = 'scheduled' THEN NULL ELSE 'worker@host/1' END
 FROM ({_FACTS}) AS f"""
_PAYLOADS = """
INSERT INTO payloads (job, headers, properties, body, result)
NUMBERS SELECT n, '{"lang":"py","task":"shop.task","id":"' || n || '","retries":0,"timelimit":[null,null],'
 || '"argsrepr":"()","kwargsrepr":"{}","origin":"web@host","ignore_result":false,"stamps":{}}',
 '{"priority":0}', '[[],{"order":' || n || ',"customer":"c"},{}]', '{"total":1}' FROM numbers"""
_EVENTS = """
INSERT INTO events (job, number, at, kind, data)
NUMBERS SELECT n, v.number, NOW - (TOTAL - n) * AGE, v.kind, v.data
 FROM numbers CROSS JOIN (SELECT 1 AS number, 'submitted' AS kind, NULL AS data
 UNION ALL SELECT 2, 'claimed', '{"worker":"worker@host/1","attempt":1}'
 UNION ALL SELECT 3, 'started', '{"attempt":1}' UNION ALL SELECT 4, 'succeeded', '{"attempt":1}') AS v
 ORDER BY n, v.number"""
_TAGS = f"""
INSERT INTO tags (tag, job)
NUMBERS SELECT 'tag-' || (mark % 40), n FROM ({_ROLLS}) AS r WHERE mark < 1000"""
_COUNTS = "INSERT INTO counts SELECT state, queue, task, COUNT(*) FROM jobs GROUP BY state, queue, task"


def fill(ledger: Ledger, jobs: int) -> float:
    """Fill an empty ledger with so many jobs; return the seconds it took."""
    began = time.perf_counter()
    indexes = [index for name in TABLES for index in metadata.tables[name].indexes]
    with ledger.transaction() as tx:
        for index in indexes:
            tx.connection.exec_driver_sql(f"DROP INDEX {index.name}")
    now = time.time_ns() // 1000
    for low in range(1, jobs + 1, STEP):
        words = {
            "NUMBERS": _NUMBERS[ledger.dialect], "STAMP": _HEX[ledger.dialect].format(12, "at / 1000"),
            "SALT": _HEX[ledger.dialect].format(12, "n * 2654435761 % 281474976710656"), "LOW": low,
            "HIGH": min(low + STEP - 1, jobs), "TOTAL": jobs, "NOW": now, "AGE": MONTH // jobs,
        }  # fmt: skip
        with _unhurried(ledger) as tx:
            driver: Any = tx.connection.connection.driver_connection
            for statement in (_JOBS, _PAYLOADS, _EVENTS, _TAGS):
                driver.execute(reduce(lambda made, word: made.replace(word, str(words[word])), words, statement))
    with _unhurried(ledger) as tx:
        for index in indexes:
            index.create(tx.connection)
        tx.connection.exec_driver_sql(_COUNTS)
        if ledger.dialect == "postgresql":
            tx.connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('jobs', 'key'), MAX(key)) FROM jobs")
    if ledger.dialect == "postgresql":
        with ledger.reading() as connection:  # each statement commits by itself
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM (ANALYZE)")
            connection.exec_driver_sql("RESET statement_timeout")
    return time.perf_counter() - began


@contextmanager
def _unhurried(ledger: Ledger) -> Iterator[Transaction]:
    """Give a transaction whose statements may take longer than those of a ledger in use."""
    with ledger.transaction() as tx:
        if ledger.dialect == "postgresql":
            tx.connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        yield tx
