"""The tables, with constraints that enforce the invariants whatever the code above does.

Rows never leave the `store` package. Times are whole milliseconds since 1970 UTC in a BIGINT: the same on both
databases, ordered, and without a time zone.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, cast, overload

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    false,
    text,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


@overload
def milliseconds(value: datetime) -> int: ...
@overload
def milliseconds(value: datetime | None) -> int | None: ...
def milliseconds(value: datetime | None) -> int | None:
    """An aware datetime as whole milliseconds since 1970 UTC."""
    return None if value is None else (value - EPOCH) // MILLISECOND


def moment(value: int) -> datetime:
    """The reverse of `milliseconds`, in UTC."""
    return EPOCH + value * MILLISECOND


def moment_or_none(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime kept as whole milliseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return milliseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return moment_or_none(value)


Serial = BigInteger().with_variant(Integer(), "sqlite")
"""An autoincrement BIGINT; SQLite numbers rows only in a column declared INTEGER."""


def any_of(name: str) -> Any:
    """A parameter for IN, whose value is a list."""
    return bindparam(name, expanding=True)


def table_of(row: type[SQLModel]) -> Table:
    return cast(Table, row.__table__)  # type: ignore[attr-defined]


class MetaRow(SQLModel, table=True):
    """Facts about the database as a whole, by name: the epoch, the heartbeat, cursors of background work."""

    __tablename__ = "meta"
    name: str = Field(primary_key=True)
    value: str


class RoomRow(SQLModel, table=True):
    __tablename__ = "rooms"
    __table_args__ = (
        Index(
            "ix_room_online",
            "performer_id",
            sqlite_where=text("performer_online"),
            postgresql_where=text("performer_online"),
        ),
    )
    performer_id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    last_at: datetime = Field(sa_type=Instant)
    mode: str
    accepting: bool
    paused: bool
    pause_reason: str | None
    strict_fifo: bool
    max_depth: int | None
    max_per_user: int | None
    max_wait_seconds: int | None
    notify_positions: str | None = Field(description="comma-separated; null: the service's default")
    announcement: str | None
    performer_online: bool
    offline_since: datetime | None = Field(sa_type=Instant)
    pruned_through: int | None = Field(sa_type=BigInteger, description="the highest version taken from its log")


class HistoryRow(SQLModel, table=True):
    """The state of the wait estimate of a room."""

    __tablename__ = "histories"
    performer_id: str = Field(primary_key=True)
    learnt: bytes = Field(sa_type=LargeBinary, description="in the layout of `histories`")


class ItemRow(SQLModel, table=True):
    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("source_feature", "idempotency_key", name="uq_item_idempotency_key"),
        UniqueConstraint("escrow_transaction_id", name="uq_item_escrow"),
        Index(
            "uq_item_one_started",
            "performer_id",
            unique=True,
            sqlite_where=text("status = 'started'"),
            postgresql_where=text("status = 'started'"),
        ),
        Index(
            "ix_item_active",
            "performer_id",
            sqlite_where=text("status IN ('created', 'started')"),
            postgresql_where=text("status IN ('created', 'started')"),
        ),
        Index(
            "ix_item_by_end",
            "performer_id",
            "ended_at",
            sqlite_where=text("ended_at IS NOT NULL"),
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
        Index("ix_item_by_user", "user_id", "created_at"),
        Index(
            "ix_item_tokens",
            "tokens",
            "ended_at",
            sqlite_where=text("ended_at IS NOT NULL"),
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
        *(
            Index(
                name,
                column,
                sqlite_where=text(f"{column} IS NOT NULL"),
                postgresql_where=text(f"{column} IS NOT NULL"),
            )
            for name, column in (
                ("ix_item_settlement", "settlement_transaction_id"),
                ("ix_item_refund", "refund_transaction_id"),
            )
        ),
        Index(
            "ix_item_due",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
    )
    item_id: str = Field(primary_key=True)
    performer_id: str
    user_id: str
    source_feature: str
    source_event_id: str
    escrow_transaction_id: str
    idempotency_key: str
    tokens: int = Field(sa_type=BigInteger)
    title: str
    description: str
    duration_seconds: int | None
    details: str = Field(sa_column=Column("metadata", Text, nullable=False))
    queue_mode: str
    pass_through_mode: bool
    status: str
    paused: bool
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)
    started_at: datetime | None = Field(sa_type=Instant)
    finished_at: datetime | None = Field(sa_type=Instant)
    abandoned_at: datetime | None = Field(sa_type=Instant)
    refunded_at: datetime | None = Field(sa_type=Instant)
    abandon_reason: str | None
    refund_reason: str | None
    wallet_status: str
    settled: bool
    settled_at: datetime | None = Field(sa_type=Instant)
    settlement_transaction_id: str | None
    settled_tokens: int | None = Field(sa_type=BigInteger)
    refunded_tokens: int | None = Field(sa_type=BigInteger)
    refund_transaction_id: str | None
    clock_used_seconds: float
    clock_since: datetime | None = Field(sa_type=Instant)
    notified: str = Field(description="comma-separated positions")
    quoted_wait_seconds: float | None
    quoted_position: int | None
    quoted_low_seconds: float | None
    quoted_high_seconds: float | None
    ended_at: datetime | None = Field(sa_type=Instant, description="when it left the queue")
    due_at: datetime | None = Field(sa_type=Instant, description="when a timer must look at it")
    first_version: int | None = Field(sa_type=BigInteger, description="the version of its first event")
    fingerprint: str | None = Field(description="of the intake: with the key and the first events, its stored answer")


class EventRow(SQLModel, table=True):
    """The event log, which is also the audit trail. Rows are only added; `compact` defines their layout.

    Statements about one event name its room and version: PostgreSQL has no index that begins with the cursor.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("performer_id", "version", name="uq_event_version"),
        Index("ix_event_order", "transaction_id", "cursor").ddl_if(dialect="postgresql"),
    )
    cursor: int | None = Field(default=None, sa_column=Column(Serial, primary_key=True, autoincrement=True))
    transaction_id: int | None = Field(
        default=None,
        sa_type=BigInteger,
        description="PostgreSQL's id of the writing transaction: sequence order is not commit order",
    )
    performer_id: str
    version: int = Field(sa_type=BigInteger)
    name: str
    at: datetime = Field(sa_type=Instant)
    actor_role: str
    actor_id: str
    item_id: str | None
    source_feature: str | None
    from_status: str | None
    to_status: str | None
    reason: str | None
    position: int
    params: str = Field(sa_type=Text)
    item: str | None = Field(sa_type=Text, description="the item after the event: compact, or whole as JSON")
    settings: str | None = Field(sa_type=Text, description="the room's settings if they changed, as JSON")


class OperationRow(SQLModel, table=True):
    """The outbox: at most one row per escrow."""

    __tablename__ = "wallet_operations"
    __table_args__ = (
        UniqueConstraint("escrow_transaction_id", name="uq_operation_escrow"),
        UniqueConstraint("item_id", name="uq_operation_item"),
        Index(
            "ix_operation_due",
            "next_attempt_at",
            sqlite_where=text("status NOT IN ('done', 'dead')"),
            postgresql_where=text("status NOT IN ('done', 'dead')"),
        ),
        Index(
            "ix_operation_not_done",
            "status",
            "operation_id",
            sqlite_where=text("status <> 'done'"),
            postgresql_where=text("status <> 'done'"),
        ),
    )
    operation_id: str = Field(primary_key=True)
    item_id: str
    performer_id: str
    user_id: str
    escrow_transaction_id: str
    kind: str
    settle_tokens: int = Field(sa_type=BigInteger)
    refund_tokens: int = Field(sa_type=BigInteger)
    reason: str
    status: str
    attempts: int
    next_attempt_at: datetime = Field(sa_type=Instant)
    last_problem: str | None
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)
    claimed: bool = Field(default=False, description="claimed at least once: from then on it cannot be cancelled")
    lease_until: datetime | None = Field(default=None, sa_type=Instant)
    rejected: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": false()},
        description="dead because the wallet refused it for good",
    )
    traceparent: str | None = Field(default=None, description="the span that has caused it, if traced")


class AnswerRow(SQLModel, table=True):
    """The answer to a POST with an idempotency key: a pointer to the event that holds the item as it was then."""

    __tablename__ = "answers"
    scope: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str
    performer_id: str
    item_id: str
    version: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Instant)


class PresenceRow(SQLModel, table=True):
    """A lease that says that a process has panels of a performer; a process that dies stops renewing it."""

    __tablename__ = "presence"
    __table_args__ = (Index("ix_presence_performer", "performer_id"),)
    process_id: str = Field(primary_key=True)
    performer_id: str = Field(primary_key=True)
    expires_at: datetime = Field(sa_type=Instant)


class WebhookEndpointRow(SQLModel, table=True):
    """An endpoint of a feature, or of the administrators (an empty owner), and the progress of delivery to it."""

    __tablename__ = "webhook_endpoints"
    owner: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    url: str = Field(sa_type=Text)
    events: str | None = Field(sa_type=Text, description="names, separated by commas; NULL: all")
    secret: str
    previous_secret: str | None = None
    previous_secret_until: datetime | None = Field(default=None, sa_type=Instant)
    status: str
    cursor: str | None
    failures: int = 0
    failing_since: datetime | None = Field(default=None, sa_type=Instant)
    next_attempt_at: datetime = Field(sa_type=Instant)
    last_problem: str | None = None
    last_delivered_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)
    lease_until: datetime | None = Field(default=None, sa_type=Instant)


class WebhookDeliveryRow(SQLModel, table=True):
    """The last attempts of each endpoint."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index("ix_webhook_delivery_endpoint", "owner", "name", "number"),)
    number: int | None = Field(default=None, sa_column=Column(Serial, primary_key=True, autoincrement=True))
    owner: str
    name: str
    message_id: str
    event: str
    performer_id: str | None
    version: int | None = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Instant)
    milliseconds: int
    status_code: int | None
    problem: str | None


class ActivityRow(SQLModel, table=True):
    """The counts of the log: see `activity`."""

    __tablename__ = "activity"
    __table_args__ = {"sqlite_with_rowid": False}
    span: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    source_feature: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    value: int = Field(sa_type=BigInteger)


class ActivitySpanRow(SQLModel, table=True):
    """The cursor before the first event of each span of the activity."""

    __tablename__ = "activity_spans"
    span: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    cursor: str


META = table_of(MetaRow)
ROOMS = table_of(RoomRow)
ITEMS = table_of(ItemRow)
EVENTS = table_of(EventRow)
EVENTS.primary_key.ddl_if(dialect="sqlite")
OPERATIONS = table_of(OperationRow)
ANSWERS = table_of(AnswerRow)
PRESENCE = table_of(PresenceRow)
