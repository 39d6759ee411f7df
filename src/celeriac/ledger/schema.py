"""The tables of the ledger, for SQLite and Postgres alike.

Frozen at revision 0001 (docs/decisions/0001-ledger-schema.md): later versions add, they do
not rebuild. `jobs.key` is the internal keyset key, `jobs.id` the public id. Payloads stand
apart so that lists never read them. Times are whole microseconds since the epoch, texts
marked JSON hold JSON documents. The SQL that moves rows is in the modules beside this one.
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


def _partial(name: str, where: str, *columns: str | TextClause) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


jobs = Table(
    "jobs",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", String(255), nullable=False, unique=True),
    Column("task", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("owner", Text, nullable=False),
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
    _partial("jobs_ready", "state = 'queued'", "queue", text("priority DESC"), "key"),
    _partial("jobs_due", "state IN ('scheduled', 'retrying')", "run_at"),
    _partial("jobs_running", "state = 'running'", "worker"),
    _partial("jobs_expiring", "expires_at IS NOT NULL AND state IN ('scheduled', 'queued', 'retrying')", "expires_at"),
    Index("jobs_state", "state", "key"),
    Index("jobs_queue", "queue", "key"),
    Index("jobs_task", "task", "key"),
    Index("jobs_owner", "owner", "key"),
    _partial("jobs_finished", "finished_at IS NOT NULL", "finished_at"),
    _partial("jobs_group", "group_id IS NOT NULL", "group_id"),
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
    Column("tag", Text, primary_key=True),
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
)
tickets = Table(
    "tickets",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at", Stamp, nullable=False),
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
