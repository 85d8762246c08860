"""The range of an item's wait that was estimated on arrival, to count the waits that lie within it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("items", sa.Column("quoted_low_seconds", sa.Float(), nullable=True))
    op.add_column("items", sa.Column("quoted_high_seconds", sa.Float(), nullable=True))
