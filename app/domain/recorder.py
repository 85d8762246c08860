"""Records what one command leads to: the events, the room folded over them, and the order to the wallet."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from app.domain.command import Actor
from app.domain.event import Event, EventName, RoomSettings
from app.domain.item import Item
from app.domain.operation import Operation, OperationKind
from app.domain.room import Room, fold


class Decision(Struct, frozen=True, kw_only=True):
    """The result of a command: all of it is committed in one transaction, or none."""

    room: Room
    """The room after the events."""
    events: tuple[Event, ...] = ()
    item: Item | None = None
    """The item the command was about, as it is afterwards: what the caller is answered with."""
    operation: Operation | None = None
    """The outbox row to write or replace."""


class EventRecorder:
    """The events of one command so far; each is folded before the next is recorded, so positions are always true."""

    def __init__(self, room: Room, actor: Actor, now: datetime, new_id: Callable[[], str]) -> None:
        self.room = room
        self.actor = actor
        self.now = now
        self.at = room.time(now)
        self.new_id = new_id
        self.events: list[Event] = []

    def record(
        self,
        name: EventName,
        item: Item,
        *,
        reason: str | None = None,
        params: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Item:
        """Records an event of `item`; `changes` are the fields that it changes. Returns the item after it."""
        recorded = replace(item, updated_at=self.at, **changes)
        self.room = fold(self.room, name, self.at, item=recorded)
        # As it is in the room now: the fold may have started its clock.
        recorded = self.room.find(item.item_id) or recorded
        position = self.room.position(item.item_id)
        shown = {"title": item.title, "tokens": item.tokens, "sourceFeature": item.source_feature}
        self._append(
            name,
            item=recorded,
            position=position,
            from_status=None if name is EventName.ITEM_CREATED else item.status,
            reason=reason,
            params={**shown, "position": position, **(params or {})},
        )
        return recorded

    def record_settings(self, name: EventName, settings: RoomSettings, first: Item | None = None) -> None:
        """Records settings, and the room's first item as `first`, if that is given. Where the settings stop or start
        the clock of the item on stage, the event carries that item."""
        before = self.room.started
        self.room = fold(self.room, name, self.at, item=first, settings=settings)
        after = self.room.started
        if first is None and before is not None and after is not None and after.clock != before.clock:
            first = after
        if first is None:
            self._append(name, settings=settings)
        else:
            self._append(name, settings=settings, item=first, position=1, from_status=first.status)

    def _append(self, name: EventName, **fields: Any) -> None:
        room = self.room
        self.events.append(
            Event(
                performer_id=room.performer_id, version=room.version, name=name, at=self.at, actor=self.actor, **fields
            )
        )

    def order(
        self,
        item: Item,
        kind: OperationKind,
        reason: str,
        *,
        refund_tokens: int = 0,
        delay_seconds: float = 0,
    ) -> Operation:
        return Operation(
            operation_id=self.new_id(),
            item_id=item.item_id,
            performer_id=item.performer_id,
            user_id=item.user_id,
            escrow_transaction_id=item.escrow_transaction_id,
            kind=kind,
            settle_tokens=item.tokens - refund_tokens,
            refund_tokens=refund_tokens,
            reason=reason,
            # By the clock, not by the room's time: a room whose last event was stamped too late delays no payment.
            next_attempt_at=self.now + timedelta(seconds=delay_seconds),
            created_at=self.at,
            updated_at=self.at,
        )

    def end(self, item: Item | None = None, operation: Operation | None = None) -> Decision:
        if item is not None:
            recorded = (
                event.item for event in reversed(self.events) if event.item and event.item.item_id == item.item_id
            )
            item = self.room.find(item.item_id) or next(recorded, item)
        return Decision(room=self.room, events=tuple(self.events), item=item, operation=operation)
