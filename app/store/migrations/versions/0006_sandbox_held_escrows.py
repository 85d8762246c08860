"""An index of the escrows that the sandbox wallet holds, by user: a hold is answered with the sum of them."""

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
