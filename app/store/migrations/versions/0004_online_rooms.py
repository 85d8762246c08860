"""An index of the rooms that say their performer is online, to find those where nobody is any more."""

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
