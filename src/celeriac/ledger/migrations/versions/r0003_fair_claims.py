"""Claims by groups: of each task and owner the oldest; unique keys that were taken over; sessions of browsers.

Adds two indexes, a column and two tables. The old index of the queue goes with the contraction. So does the order of
letters that tags had on Postgres: the programs of revision 0002 read it with the rows, and could not go on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"

INDEXES = {
    "jobs_waiting": 'CREATE INDEX {} jobs_waiting ON jobs (queue, priority DESC, task, owner, "key")'
    " WHERE state = 'queued' AND observed = 0",
    "jobs_observed": "CREATE INDEX {} jobs_observed ON jobs (created_at) WHERE observed = 1 AND state = 'queued'",
}
# Only built beforehand where tags are many; it becomes the primary key.
CONTRACT_INDEXES = {"tags_named": 'CREATE UNIQUE INDEX {} tags_named ON tags (tag COLLATE "C", job)'}


def upgrade() -> None:
    """Add what is new."""
    op.add_column("jobs", sa.Column("unique_key", sa.Text(), nullable=True))
    for definition in INDEXES.values():
        op.execute(definition.format("IF NOT EXISTS"))
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("sessions_owner", "sessions", ["owner"])
    op.create_table(
        "stuck_workers",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker"),
    )


def contract() -> None:
    """Take away what revision 0002 needed."""
    op.drop_index("jobs_ready", "jobs")
    if op.get_context().dialect.name == "postgresql":
        built = op.get_bind().scalar(sa.text("SELECT to_regclass('tags_named')")) is not None
        if built:
            op.execute("ALTER TABLE tags DROP CONSTRAINT tags_pkey")
        op.execute('ALTER TABLE tags ALTER COLUMN tag TYPE text COLLATE "C"')
        if built:
            op.execute("ALTER TABLE tags ADD CONSTRAINT tags_pkey PRIMARY KEY USING INDEX tags_named")
