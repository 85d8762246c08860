"""Two settings of a room: the most active items of one user, and the longest estimated wait of an intake."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("rooms", sa.Column("max_per_user", sa.Integer(), nullable=True))
    op.add_column("rooms", sa.Column("max_wait_seconds", sa.Integer(), nullable=True))
