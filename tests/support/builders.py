"""Items, actors and a room for the tests, with default values for everything that a test does not name.

`Stage` replaces the process around one room: it keeps the ended items, the wallet operations, and which of these are
claimed. It decides nothing itself.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from app.domain import command as do
from app.domain.command import Actor, Command, Mode, Role
from app.domain.decision import decide
from app.domain.event import Event
from app.domain.item import Item, Reason, Status
from app.domain.operation import Operation, OperationKind, OperationStatus, Receipt
from app.domain.recorder import Decision
from app.domain.room import Policy, Room

API_TOKEN = "the-bearer-token-of-these-tests"
QUEUE_SECRET = "a-queue-secret-for-tests-of-enough-bytes"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

FEATURE = Actor(role=Role.FEATURE, id="wheel")
VIEWER = Actor(role=Role.VIEWER, id="viewer-1")
PERFORMER = Actor(role=Role.PERFORMER, id="star")
MODERATOR = Actor(role=Role.MODERATOR, id="mod-1")
ADMIN = Actor(role=Role.ADMIN, id="admin-1")


def moment(seconds: float = 0) -> datetime:
    """The time `seconds` after NOON."""
    return NOON + timedelta(seconds=seconds)


def item_id_of(number: int) -> str:
    """The id of item `number`: it has the form of a UUIDv7, and ids sort like the numbers."""
    return f"{number:08x}-0000-7000-8000-000000000000"


def build_item(number: int = 1, **fields: Any) -> Item:
    """A valid draft; items with different numbers have different ids."""
    values: dict[str, Any] = {
        "item_id": item_id_of(number),
        "performer_id": PERFORMER.id,
        "user_id": f"viewer-{number}",
        "source_feature": FEATURE.id,
        "source_event_id": f"event-{number}",
        "escrow_transaction_id": f"escrow-{number}",
        "idempotency_key": f"key-{number}",
        "tokens": 100,
        "title": f"Request {number}",
        "description": "Sing the one about the sea",
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Item(**{**values, **fields})


def build_room(policy: Policy | None = None, **fields: Any) -> Room:
    return Room(performer_id=PERFORMER.id, policy=policy or Policy(), **fields)


@dataclass(kw_only=True)
class Stage:
    """One room, its items and operations, changed by single commands at a time that the test sets."""

    room: Room = field(default_factory=build_room)
    now: datetime = NOON
    items: dict[str, Item] = field(default_factory=dict)
    """All items in their last state, ended ones included."""
    operations: dict[str, Operation] = field(default_factory=dict)
    """The outbox, by item: at most one operation each."""
    claimed: set[str] = field(default_factory=set)
    """The items whose operation is claimed."""
    events: list[Event] = field(default_factory=list)
    arrived: int = 0
    ordered: int = 0

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def send(self, command: Command) -> Decision:
        """Decide a command and keep the result. A refusal is raised and changes nothing."""
        item_id = getattr(command, "item_id", "")
        decision = decide(
            self.room,
            command,
            self.now,
            item=self.items.get(item_id),
            operation=self.operations.get(item_id),
            claimed=item_id in self.claimed,
            new_id=self._next_operation_id,
        )
        self.room = decision.room
        self.events.extend(decision.events)
        self.items.update({item.item_id: item for item in decision.room.items})
        if decision.item is not None:
            self.items[decision.item.item_id] = decision.item
        if decision.operation is not None:
            self.operations[decision.operation.item_id] = decision.operation
        return decision

    def intake(self, *, queue_mode: Mode | None = None, number: int | None = None, **fields: Any) -> Item:
        self.arrived += 1
        draft = build_item(self.arrived if number is None else number, **fields)
        return item_of(self.send(do.Intake(actor=FEATURE, item=draft, queue_mode=queue_mode)))

    def start(self, item: Item) -> Item:
        return item_of(self.send(do.Start(actor=PERFORMER, item_id=item.item_id)))

    def start_next(self) -> Item:
        return item_of(self.send(do.StartNext(actor=PERFORMER)))

    def complete(self, item: Item, refund_tokens: int | None = None) -> Item:
        return item_of(self.send(do.Complete(actor=PERFORMER, item_id=item.item_id, refund_tokens=refund_tokens)))

    def abandon(self, item: Item, reason: Reason = Reason.PERFORMER_DECLINED) -> Item:
        return item_of(self.send(do.Abandon(actor=PERFORMER, item_id=item.item_id, reason=reason)))

    def refund(self, item: Item, reason: Reason = Reason.ADMIN_REFUND, actor: Actor = ADMIN) -> Item:
        return item_of(self.send(do.Refund(actor=actor, item_id=item.item_id, reason=reason)))

    def pause(self, item: Item) -> Item:
        return item_of(self.send(do.Pause(actor=PERFORMER, item_id=item.item_id)))

    def resume(self, item: Item) -> Item:
        return item_of(self.send(do.Resume(actor=PERFORMER, item_id=item.item_id)))

    def change(self, **settings: Any) -> Decision:
        return self.send(do.ChangeSettings(actor=PERFORMER, **settings))

    def presence(self, *, online: bool) -> Decision:
        return self.send(do.SetPresence(online=online))

    def expire(self, item: Item, at: datetime | None = None) -> Decision:
        """`at`: the time at which the timer expired; by default now."""
        return self.send(do.Expire(item_id=item.item_id, at=self.now if at is None else at))

    def confirm(self, item: Item) -> Decision:
        """The wallet confirms the item's operation with the ordered amounts."""
        operation = self.operations[item.item_id]
        return self.send(
            do.Confirm(
                item_id=item.item_id,
                operation=replace(operation, status=OperationStatus.DONE),
                receipt=Receipt(
                    transaction_id=f"tx-{item.item_id}",
                    settled_tokens=operation.settle_tokens,
                    refunded_tokens=operation.refund_tokens,
                ),
            )
        )

    def report(self, item: Item, status: OperationStatus, attempts: int = 1) -> Decision:
        operation = replace(self.operations[item.item_id], status=status, attempts=attempts)
        return self.send(do.Report(item_id=item.item_id, operation=operation))

    def of(self, item: Item) -> Item:
        """The item's present state."""
        return self.items[item.item_id]

    def in_status(self, status: Status, *, paused: bool = False, **fields: Any) -> Item:
        """A new item brought to `status`; only one can be started at a time."""
        item = self.intake(**fields)
        match status:
            case Status.STARTED:
                item = self.start(item)
            case Status.FINISHED:
                item = self.complete(self.start(item))
            case Status.ABANDONED:
                item = self.abandon(item)
            case Status.REFUNDED:
                item = self.refund(item)
        return self.pause(item) if paused else item

    def _next_operation_id(self) -> str:
        self.ordered += 1
        return f"operation-{self.ordered}"


def item_of(decision: Decision) -> Item:
    """The item of a decision, which must have one."""
    assert decision.item is not None
    return decision.item


def order_of(decision: Decision, kind: OperationKind) -> Operation:
    """The operation of a decision, which must have one of this kind."""
    assert decision.operation is not None
    assert decision.operation.kind is kind
    return decision.operation
