"""Whether a dead operation was refused for good by the wallet; the others are tried again when the wallet is back."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("wallet_operations", sa.Column("rejected", sa.Boolean(), server_default=sa.false(), nullable=False))
