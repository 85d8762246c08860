"""Whether the wallet refused a dead operation for good. The other dead operations are retried when it is back."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("wallet_operations", sa.Column("rejected", sa.Boolean(), server_default=sa.false(), nullable=False))
