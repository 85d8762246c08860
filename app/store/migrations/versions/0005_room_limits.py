"""Two settings of a room: how many active items one user may have, and beyond which wait nobody is taken."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("rooms", sa.Column("max_per_user", sa.Integer(), nullable=True))
    op.add_column("rooms", sa.Column("max_wait_seconds", sa.Integer(), nullable=True))
