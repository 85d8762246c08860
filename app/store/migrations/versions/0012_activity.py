"""The counts of the log by feature in spans of ten minutes. The service adds them in small batches."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "activity",
        sa.Column("span", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("source_feature", sa.String(), primary_key=True),
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "activity_spans",
        sa.Column("span", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("cursor", sa.String(), nullable=False),
    )
