"""An index of the sandbox wallet's held escrows by user: the answer to a hold contains their sum."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index(
        "ix_sandbox_escrow_held",
        "sandbox_escrow",
        ["user_id"],
        unique=False,
        sqlite_where=sa.text("status = 'held'"),
        postgresql_where=sa.text("status = 'held'"),
    )
