"""The range of the wait that an item was told on arrival, so that it can be seen how many waits lie inside."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("items", sa.Column("quoted_low_seconds", sa.Float(), nullable=True))
    op.add_column("items", sa.Column("quoted_high_seconds", sa.Float(), nullable=True))
