"""What leads from one version of a room to a later one, as frames: each made once, for all that are told it."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.event import Event
from app.domain.item import Item
from app.domain.room import Room
from app.domain.view import View
from app.wire import frames
from app.wire.websocket import text_frame


@dataclass(slots=True, kw_only=True)
class Update:
    """`events` are those that led from `before` to `after`; `now` is the time the frames say."""

    before: Room
    after: Room
    events: Sequence[Event]
    epoch: str
    now: datetime
    _frames: dict[View, bytes] = field(init=False, default_factory=dict)

    def frame(self, view: View) -> bytes:
        """What everybody of an audience is told: those that see whole items, or the others."""
        if view not in self._frames:
            since = self.before.version
            self._frames[view] = text_frame(
                frames.update(self.events, self.after, self.epoch, self.now, since=since, view=view)
            )
        return self._frames[view]

    def private(self, owners: Container[str]) -> dict[str, list[bytes]]:
        """Of these users, by user: where their items are now, and the milestones these have reached."""
        before, after = self.before, self.after
        waits = after.waits(self.now)
        touched = {event.item.item_id: event.item for event in self.events if event.item is not None}
        old_position = {item.item_id: at for at, item in enumerate(before.items, start=1)}
        told: dict[str, list[bytes]] = {}

        def tell(item: Item, frame: bytes) -> None:
            told.setdefault(item.user_id, []).append(text_frame(frame))

        for at, item in enumerate(after.items, start=1):
            if item.user_id not in owners:
                continue
            if item.item_id in touched or old_position.get(item.item_id) != at:
                tell(item, frames.position(after, item, waits))
            earlier = before.find(item.item_id)
            for milestone in item.notified:
                if earlier is None or milestone not in earlier.notified:
                    tell(item, frames.notice(after, item, milestone, waits))
        for item in touched.values():
            if item.user_id in owners and after.find(item.item_id) is None:
                tell(item, frames.position(after, item, waits))
        return told
