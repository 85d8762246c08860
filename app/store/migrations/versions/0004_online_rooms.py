"""An index of the rooms whose performer is marked online, to find those without a live presence lease."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index(
        "ix_room_online",
        "rooms",
        ["performer_id"],
        unique=False,
        sqlite_where=sa.text("performer_online"),
        postgresql_where=sa.text("performer_online"),
    )
