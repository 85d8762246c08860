"""The place in a trace of what has brought a wallet operation about: its attempts belong there, however late."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("wallet_operations", sa.Column("traceparent", sa.String(), nullable=True))
