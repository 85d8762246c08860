"""The state of the wait estimate of each room. A row is written when the room next learns."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "histories",
        sa.Column("performer_id", sa.String(), primary_key=True),
        sa.Column("learnt", sa.LargeBinary(), nullable=False),
    )
