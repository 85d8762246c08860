"""Records the results of one command: its events, the room folded over them, and the order to the wallet."""

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
    """The result of a command, which is committed in one transaction."""

    room: Room
    """The room after the events."""
    events: tuple[Event, ...] = ()
    item: Item | None = None
    """The item that the command was about, as it is afterwards. The caller gets it as the answer."""
    operation: Operation | None = None
    """The outbox row to write or replace."""


class EventRecorder:
    """The events of one command so far. Each is folded into the room before the next is recorded, so that its position
    is right."""

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
        # The fold may have started the item's clock.
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
        """Records an event of the room's settings, and `first` as its new first item, if given. If the settings stop or
        start the clock of the started item, the event carries that item."""
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
        """A new wallet operation for the item; the caller passes it to `end`."""
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
            # By the clock, not by the room's time: a room whose last event has too late a time delays no payment.
            next_attempt_at=self.now + timedelta(seconds=delay_seconds),
            created_at=self.at,
            updated_at=self.at,
        )

    def end(self, item: Item | None = None, operation: Operation | None = None) -> Decision:
        """The decision. `item`: the item that the command and all its events are about; its latest state is used."""
        if item is not None:
            last = self.events[-1].item if self.events else None
            item = self.room.find(item.item_id) or last or item
        return Decision(room=self.room, events=tuple(self.events), item=item, operation=operation)
