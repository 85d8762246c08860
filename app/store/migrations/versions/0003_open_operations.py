"""The index of due operations with a condition that no other index fits: SQLite used the index on `status`, and
sorted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("ix_operation_due", table_name="wallet_operations")
    op.create_index(
        "ix_operation_due",
        "wallet_operations",
        ["next_attempt_at"],
        unique=False,
        sqlite_where=sa.text("status NOT IN ('done', 'dead')"),
        postgresql_where=sa.text("status NOT IN ('done', 'dead')"),
    )
