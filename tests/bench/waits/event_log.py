"""An exported event log as the moments it was made of, so that real nights can be scored like generated ones.

The file holds one event of `GET /v1/events` a line, as JSON, oldest first. Events are folded into rooms as the service
does; those of a room whose first event is missing are left out, because its queue is unknown.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from app.domain.command import Actor, Role
from app.domain.event import Event, EventName
from app.domain.item import Clock, Item, Reason, Status
from app.domain.room import Policy, Room, fold
from tests.bench.waits.nights import Moment

_SOMEBODY = Actor(role=Role.SYSTEM, id="log")


def moments_by_room(path: Path) -> dict[str, list[Moment]]:
    """Raises ValueError, with the number of the line, for one that is no event of the log."""
    rooms: dict[str, Room] = {}
    moments: dict[str, list[Moment]] = {}
    for number, line in _lines(path):
        try:
            event = event_from(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} is not an event of the log: {error}") from None
        room = rooms.get(event.performer_id) or Room(performer_id=event.performer_id, policy=Policy())
        if event.version != room.version + 1:
            rooms.pop(event.performer_id, None)
            continue
        item = event.item and _with_quote(event.item, room, event)
        room = fold(room, event.name, event.at, item=item)
        rooms[event.performer_id] = room
        moments.setdefault(event.performer_id, []).append(Moment(event=event, room=room))
    return moments


def event_from(shape: dict[str, Any]) -> Event:
    item = shape["item"]
    return Event(
        performer_id=shape["performerId"],
        version=shape["version"],
        name=EventName(shape["event"]),
        at=_instant(shape["at"]),
        actor=_SOMEBODY,
        item=None if item is None else _item(item),
    )


def _item(shape: dict[str, Any]) -> Item:
    clock = shape.get("clock") or {"usedSeconds": 0.0, "runningSince": None}
    return Item(
        item_id=shape["itemId"],
        performer_id=shape["performerId"],
        user_id=shape["userId"],
        source_feature=shape["sourceFeature"],
        source_event_id=shape["sourceEventId"],
        escrow_transaction_id=shape["escrowTransactionId"],
        idempotency_key=shape["idempotencyKey"],
        tokens=shape["tokens"],
        title=shape["title"],
        description=shape["description"],
        duration_seconds=shape["durationSeconds"],
        pass_through_mode=shape["passThroughMode"],
        status=Status(shape["status"]),
        paused=shape["paused"],
        created_at=_instant(shape["createdAt"]),
        updated_at=_instant(shape["updatedAt"]),
        started_at=_optional(shape["startedAt"]),
        finished_at=_optional(shape["finishedAt"]),
        abandoned_at=_optional(shape["abandonedAt"]),
        refunded_at=_optional(shape["refundedAt"]),
        abandon_reason=Reason(shape["abandonReason"]) if shape["abandonReason"] else None,
        clock=Clock(used_seconds=clock["usedSeconds"], since=_optional(clock["runningSince"])),
    )


def _with_quote(item: Item, room: Room, event: Event) -> Item:
    """The log does not say which wait was quoted on arrival: it is worked out anew, from what was known then."""
    if event.name is EventName.ITEM_CREATED:
        return replace(item, quoted_wait_seconds=room.wait_of_next(event.at), quoted_position=room.depth + 1)
    known = room.find(item.item_id)
    if known is None:
        return item
    return replace(item, quoted_wait_seconds=known.quoted_wait_seconds, quoted_position=known.quoted_position)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _optional(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
