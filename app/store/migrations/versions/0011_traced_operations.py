"""The span that caused a wallet operation; the spans of its attempts belong to the same trace."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("wallet_operations", sa.Column("traceparent", sa.String(), nullable=True))
