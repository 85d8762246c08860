"""The version of an item's first event and the digest of its intake, so that its events and its stored answer are found
without further rows; and the version up to which a room's log has been pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("items", sa.Column("first_version", sa.BigInteger(), nullable=True))
    op.add_column("items", sa.Column("fingerprint", sa.String(), nullable=True))
    op.add_column("rooms", sa.Column("pruned_through", sa.BigInteger(), nullable=True))
