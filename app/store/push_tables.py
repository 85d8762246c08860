"""The tables of push notifications."""

from datetime import datetime

from sqlalchemy import Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from app.store.tables import Instant, table_of


class PushSubscriptionRow(SQLModel, table=True):
    """A user's browser that has subscribed to push notifications."""

    __tablename__ = "push_subscriptions"
    __table_args__ = (UniqueConstraint("endpoint", name="uq_push_endpoint"),)
    user_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    endpoint: str = Field(sa_type=Text)
    origin: str
    p256dh: str
    auth: str
    language: str
    created_at: datetime = Field(sa_type=Instant)
    renewed_at: datetime = Field(sa_type=Instant)


class PushNoticeRow(SQLModel, table=True):
    """A moment of an item for one subscription. It is stored before it is sent, and kept so that it is sent once."""

    __tablename__ = "push_notices"
    __table_args__ = (
        Index(
            "ix_push_notice_due",
            "next_attempt_at",
            sqlite_where=text("next_attempt_at IS NOT NULL"),
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
    )
    item_id: str = Field(primary_key=True)
    moment: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True, description="of the subscription")
    performer_id: str
    expires_at: datetime = Field(sa_type=Instant)
    attempts: int
    next_attempt_at: datetime | None = Field(sa_type=Instant, description="NULL: sent or given up")


class PushProgressRow(SQLModel, table=True):
    """One row: the cursor up to which the log has been read for push notifications, and the process that reads it."""

    __tablename__ = "push_progress"
    name: str = Field(primary_key=True)
    cursor: str | None
    holder: str = Field(description="a process; empty: nobody")
    lease_until: datetime = Field(sa_type=Instant)


PUSH_SUBSCRIPTIONS = table_of(PushSubscriptionRow)
PUSH_NOTICES = table_of(PushNoticeRow)
PUSH_PROGRESS = table_of(PushProgressRow)
