"""PostgreSQL: no index of the events' cursors, which no statement needs any more. It was the table's primary key, so
logical replication gets another unique index in its place."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
        op.execute("ALTER TABLE events REPLICA IDENTITY USING INDEX uq_event_version")
        # A compaction that is under way begins again: it follows the log's order now.
        op.execute("DELETE FROM meta WHERE name = 'compacted_through' AND value <> 'done'")
