"""Push subscriptions, notices to them, and the progress of reading the log for notices."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "push_subscriptions",
        sa.Column("user_id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("p256dh", sa.String(), nullable=False),
        sa.Column("auth", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("renewed_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("endpoint", name="uq_push_endpoint"),
    )
    op.create_table(
        "push_notices",
        sa.Column("item_id", sa.String(), primary_key=True),
        sa.Column("moment", sa.String(), primary_key=True),
        sa.Column("user_id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("performer_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
    )
    is_due = sa.text("next_attempt_at IS NOT NULL")
    op.create_index(
        "ix_push_notice_due", "push_notices", ["next_attempt_at"], sqlite_where=is_due, postgresql_where=is_due
    )
    op.create_table(
        "push_progress",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("cursor", sa.String(), nullable=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
    )
