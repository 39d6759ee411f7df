"""What the whole interface needs: batches, unique keys, operations, endings, and one index for every list.

Adds columns and tables, and replaces three indexes of `jobs` by one. On Postgres names get the
byte order, so that beginnings of them are found by their indexes, and `jobs` room for updates in place.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"

NAMES = ("id", "task", "state", "queue", "owner")


def upgrade() -> None:
    """Add what is new."""
    op.add_column("jobs", sa.Column("batch", sa.String(255), nullable=True))
    op.add_column("jobs", sa.Column("observed", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("payloads", sa.Column("celery_state", sa.Text(), nullable=True))
    op.add_column("payloads", sa.Column("celery_meta", sa.Text(), nullable=True))
    op.add_column("tokens", sa.Column("tasks", sa.Text(), nullable=True))
    _indexes()
    _tables()
    if op.get_context().dialect.name == "postgresql":
        for name in NAMES:
            kind = "varchar(255)" if name == "id" else "text"
            op.execute(f'ALTER TABLE jobs ALTER COLUMN {name} TYPE {kind} COLLATE "C"')
        # A job dies three times as a row before it has ended; left for later, they slow the claims.
        settings = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000"
        op.execute(f"ALTER TABLE jobs SET ({settings})")
        op.execute(
            "ALTER TABLE count_deltas SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000)"
        )


def _indexes() -> None:
    for name in ("jobs_state", "jobs_queue", "jobs_task"):
        op.drop_index(name, "jobs")
    op.create_index("jobs_kind", "jobs", ["state", "queue", "task", "key"])
    batched = sa.text("batch IS NOT NULL")
    op.create_index("jobs_batch", "jobs", ["batch"], sqlite_where=batched, postgresql_where=batched)


def _tables() -> None:
    op.create_table(
        "unique_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "task", "key"),
    )
    op.create_index("unique_keys_until", "unique_keys", ["until"])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("matched", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("moved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refused", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "operations_open", "operations", ["created_at"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_table(
        "endings",
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "state", "queue", "task"),
    )
