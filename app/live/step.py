"""A step from one version of a room to a later one, as frames: each made once, for all its receivers."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.event import Event
from app.domain.item import Item
from app.domain.room import Room
from app.domain.view import View
from app.live.subscriber import Format
from app.wire import frames
from app.wire.websocket import compressed_frame, deflated, text_frame


def visible(events: Sequence[Event], view: View) -> list[Event]:
    """The events that a view shows."""
    return [event for event in events if view is View.FULL or event.is_public]


def as_frame(payload: bytes, *, deflates: bool) -> bytes:
    """A JSON payload as a text frame, compressed or not."""
    return compressed_frame(deflated(payload)) if deflates else text_frame(payload)


@dataclass(slots=True, kw_only=True)
class Step:
    """A step with the `events` that led from `before` to `after`. `now`: the `serverTime` of its frames."""

    before: Room
    after: Room
    events: Sequence[Event]
    epoch: str
    now: datetime
    _payloads: dict[tuple[View, int, int], bytes] = field(init=False, default_factory=dict)
    _frames: dict[tuple[Format, int, int], bytes] = field(init=False, default_factory=dict)

    def is_empty(self, view: View) -> bool:
        """Whether sockets of a view get no frame of this step, because they may see none of its events."""
        return view is View.PUBLIC and not any(event.is_public for event in self.events)

    def frame(self, form: Format, since: int, version: int) -> bytes:
        """The update from version `since` to `version`, for all sockets of a format."""
        key = form, since, version
        if key not in self._frames:
            self._frames[key] = as_frame(self._payload(form.view, since, version), deflates=form.deflates)
        return self._frames[key]

    def _payload(self, view: View, since: int, version: int) -> bytes:
        key = view, since, version
        if key not in self._payloads:
            events = visible(self.events, view)
            room = frames.room_if_changed(self.before, self.after, self.epoch)
            self._payloads[key] = frames.update(events, self.now, since=since, version=version, view=view, room=room)
        return self._payloads[key]

    def private(self, owners: Container[str], version: int) -> dict[str, list[bytes]]:
        """The private frames of these users, by user: positions of their items that have moved or changed, and notices
        of the milestones that they have reached."""
        before, after = self.before, self.after
        touched = {event.item.item_id: event.item for event in self.events if event.item is not None}
        old_position = {item.item_id: at for at, item in enumerate(before.items, start=1)}
        waits = after.waits(self.now)
        sent: dict[str, list[bytes]] = {}

        def send(item: Item, frame: bytes) -> None:
            sent.setdefault(item.user_id, []).append(text_frame(frame))

        for at, item in enumerate(after.items, start=1):
            if item.user_id not in owners:
                continue
            if item.item_id in touched or old_position.get(item.item_id) != at:
                send(item, frames.position(after, item, waits, version))
            earlier = before.find(item.item_id)
            for milestone in item.notified:
                if earlier is None or milestone not in earlier.notified:
                    send(item, frames.notice(after, item, milestone, waits))
        for item in touched.values():
            if item.user_id in owners and after.find(item.item_id) is None:
                send(item, frames.position(after, item, waits, version))
        return sent
