"""The tables of the ledger, for SQLite and Postgres alike.

What migrations make, a test compares with this. `jobs.key` is the internal keyset key,
`jobs.id` the public id. Payloads stand apart so that lists never read them. Times are whole
microseconds since the epoch, texts marked JSON hold JSON documents. Why it is so is in
docs/decisions/0001-ledger-schema.md; the SQL that moves rows is in `moves/`.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TextClause,
    text,
)

metadata = MetaData()
# SQLite numbers rows by itself only for a column of exactly this type.
Key = BigInteger().with_variant(Integer, "sqlite")
Stamp = BigInteger
# Names are compared byte by byte, also where a database sorts by the rules of a language.
Name = Text().with_variant(Text(collation="C"), "postgresql")
Id = String(255).with_variant(String(255, collation="C"), "postgresql")

WAITING = "state = 'queued' AND observed = 0"


def _partial(name: str, where: str, *columns: str | TextClause) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


jobs = Table(
    "jobs",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("state", Name, nullable=False),
    Column("queue", Name, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("owner", Name, nullable=False),
    Column("cost", BigInteger),
    Column("attempt", Integer, nullable=False, server_default="0"),  # raised by each claim: the fencing token
    Column("executions", Integer, nullable=False, server_default="0"),  # attempts whose user code began
    Column("max_attempts", Integer),  # caps executions
    Column("deaths", Integer, nullable=False, server_default="0"),  # workers lost while it ran
    Column("rerun", SmallInteger, nullable=False, server_default="1"),  # 0: losing its worker fails it
    Column("number", Integer, nullable=False, server_default="1"),  # of its last event
    Column("args", Text, nullable=False, server_default="{}"),  # JSON preview
    Column("result", Text),  # JSON preview
    Column("error_code", Text),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("progress_value", Float),
    Column("progress_total", Float),
    Column("progress_note", Text),
    Column("tags", Text),  # JSON list
    Column("created_at", Stamp, nullable=False),
    Column("run_at", Stamp),
    Column("expires_at", Stamp),
    Column("claimed_at", Stamp),
    Column("started_at", Stamp),
    Column("finished_at", Stamp),
    Column("cancel_requested_at", Stamp),
    Column("worker", Text),  # workers.id
    Column("parent", String(255)),
    Column("root", String(255)),
    Column("group_id", String(255)),
    Column("group_index", Integer),
    Column("chord", String(255)),
    Column("schedule", Text),
    Column("batch", String(255)),
    Column("observed", SmallInteger, nullable=False, server_default="0"),  # 1: the broker decides, we only look on
    Column("unique_key", Text),  # JSON [task, key]: a unique key it had, which another job has taken over
    # What may be claimed, by groups of priority, task and owner (moves/claim.py).
    _partial("jobs_waiting", WAITING, "queue", text("priority DESC"), "task", "owner", "key"),
    _partial("jobs_due", "state IN ('scheduled', 'retrying')", "run_at"),
    _partial("jobs_running", "state = 'running'", "worker"),
    _partial("jobs_expiring", "expires_at IS NOT NULL AND state IN ('scheduled', 'queued', 'retrying')", "expires_at"),
    # Every list by state, queue or task is a merge of ranges of this one (pages.py).
    Index("jobs_kind", "state", "queue", "task", "key"),
    Index("jobs_owner", "owner", "key"),
    _partial("jobs_finished", "finished_at IS NOT NULL", "finished_at"),
    _partial("jobs_group", "group_id IS NOT NULL", "group_id"),
    _partial("jobs_batch", "batch IS NOT NULL", "batch"),
    _partial("jobs_observed", "observed = 1 AND state = 'queued'", "created_at"),
    sqlite_autoincrement=True,
)

payloads = Table(
    "payloads",
    metadata,
    Column("job", Key, primary_key=True, autoincrement=False),
    Column("headers", Text, nullable=False),  # JSON, as Celery sends them
    Column("properties", Text, nullable=False),  # JSON
    Column("body", Text, nullable=False),  # JSON: [args, kwargs, embed]
    Column("result", Text),  # JSON
    Column("traceback", Text),
    Column("exception", Text),  # JSON, as Celery's backends keep it
    Column("celery_state", Text),  # what a task said of itself with `update_state`
    Column("celery_meta", Text),  # JSON
)

events = Table(
    "events",
    metadata,
    Column("position", Key, primary_key=True, autoincrement=True),
    Column("job", Key, nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Stamp, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text),  # JSON
    Index("events_job", "job", "number", unique=True),
    sqlite_autoincrement=True,
)

tags = Table(
    "tags",
    metadata,
    Column("tag", Name, primary_key=True),
    Column("job", Key, primary_key=True, autoincrement=False),
    Index("tags_job", "job"),
)

# Counts are what is folded plus what is not: exact at any moment, and no row is hot.
counts = Table(
    "counts",
    metadata,
    Column("state", Text, primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)
count_deltas = Table(
    "count_deltas",
    metadata,
    Column("position", Key, primary_key=True, autoincrement=True),
    Column("state", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("jobs", BigInteger, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("job", String(255), nullable=False),
    Column("created_at", Stamp, nullable=False),
    Index("idempotency_created", "created_at"),
)

# A unique key stands for one job of an owner's task until that job is final and the window is over.
unique_keys = Table(
    "unique_keys",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("job", String(255), nullable=False),
    Column("until", Stamp, nullable=False),
    Index("unique_keys_until", "until"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("created_at", Stamp, nullable=False),
)

# A cancel or a retry of everything that matches a filter; the keeper works it off in small steps.
operations = Table(
    "operations",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("kind", Text, nullable=False),  # cancel, retry
    Column("owner", Text, nullable=False),
    Column("permissions", Text, nullable=False),  # JSON: the Principal on whose behalf it is
    Column("filter", Text, nullable=False),  # JSON
    Column("upto", BigInteger, nullable=False),  # the newest job it concerns
    Column("after", Text),  # cursor: how far it has come
    Column("matched", BigInteger, nullable=False, server_default="0"),
    Column("moved", BigInteger, nullable=False, server_default="0"),
    Column("refused", BigInteger, nullable=False, server_default="0"),
    Column("created_at", Stamp, nullable=False),
    Column("finished_at", Stamp),
    _partial("operations_open", "finished_at IS NULL", "created_at"),
)

# How many jobs reached a final state in a minute, added up by the keeper from the count deltas.
endings = Table(
    "endings",
    metadata,
    Column("minute", Stamp, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)

chords = Table(
    "chords",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("size", Integer),
    Column("body", Text, nullable=False),  # JSON: the submissions to make
    Column("created_at", Stamp, nullable=False),
    Column("fired_at", Stamp),
)
chord_parts = Table(
    "chord_parts",
    metadata,
    Column("chord", String(255), primary_key=True),
    Column("job", String(255), primary_key=True),
    Column("part", Integer, nullable=False),
    Column("result", Text),  # JSON
)

queues = Table(
    "queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused_at", Stamp),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", Text, nullable=False),  # JSON list
    Column("tasks", Text, nullable=False),  # JSON list
    Column("concurrency", Integer, nullable=False),
    Column("pool", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("beats", BigInteger, nullable=False, server_default="0"),
    Column("beat_at", Stamp, nullable=False),
    Column("started_at", Stamp, nullable=False),
    Column("stopped_at", Stamp),
    Column("lost_at", Stamp),
)

# Who claims nothing though it could, and since when. Not a column of `workers`: programs of revision 0002 read all.
stuck_workers = Table(
    "stuck_workers",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("at", Stamp, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("beats", BigInteger, nullable=False),
    Column("released", SmallInteger, nullable=False, server_default="0"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("position", Key, primary_key=True, autoincrement=True),
    Column("at", Stamp, nullable=False),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", Stamp, nullable=False),
    Column("expires_at", Stamp),
    Column("revoked_at", Stamp),
    Column("used_at", Stamp),
    Column("tasks", Text),  # JSON list of patterns: the only tasks it may submit
)
tickets = Table(
    "tickets",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at", Stamp, nullable=False),
)

# Who is logged in with a browser.
sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at", Stamp, nullable=False),
    Index("sessions_owner", "owner"),
)

# Celery's own small talk (remote control, events) when the ledger is the queue.
mail_bindings = Table(
    "mail_bindings",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("routing_key", Text, primary_key=True),
    Column("pattern", Text, primary_key=True),
    Column("queue", Text, primary_key=True),
)
mail = Table(
    "mail",
    metadata,
    Column("position", Key, primary_key=True, autoincrement=True),
    Column("queue", Text, nullable=False),
    Column("at", Stamp, nullable=False),
    Column("message", Text, nullable=False),  # JSON
    Index("mail_queue", "queue", "position"),
)
