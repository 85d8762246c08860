"""The frames that the service sends over the socket, as bytes: built once for all sockets that get them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from app.domain.errors import QueueError
from app.domain.estimate import Waits
from app.domain.event import Event, notice_template
from app.domain.item import Item
from app.domain.room import NEXT_UP, Room
from app.domain.view import View
from app.wire.encoding import encode
from app.wire.shapes import (
    EventShape,
    PositionShape,
    Problem,
    PublicItem,
    RoomShape,
    WholeItem,
    event_shape,
    position_shape,
    problem,
    queue_items,
    room_shape,
    whole_item,
)

SUBPROTOCOL = "performance-queue.v1"
BEARER_PROTOCOL = "bearer."
"""The prefix of an offered subprotocol that carries a token: a browser's script cannot set a handshake's headers."""
PING_SECONDS = 20
RETRY_SECONDS = (1, 5)
"""The shortest and the longest first pause before a client reconnects; it picks one at random."""


class Welcome(TypedDict):
    type: Literal["welcome"]
    role: str
    sub: str | None
    epoch: str
    pingSeconds: int
    retrySeconds: list[int]
    expiresAt: datetime | None
    """When the token runs out and the connection ends, unless `auth` comes with a new one; null without a token."""


class MyItem(WholeItem, PositionShape):
    """An active item of the socket's user, with its position and its estimated wait."""


class Snapshot(TypedDict):
    type: Literal["snapshot"]
    epoch: str
    version: int
    serverTime: datetime
    room: RoomShape
    items: list[WholeItem] | list[PublicItem]
    mine: list[MyItem]
    recovered: bool


Update = TypedDict(
    "Update",
    {
        "type": Literal["update"],
        "from": int,
        "version": int,
        "serverTime": datetime,
        "events": list[EventShape],
        "room": NotRequired[RoomShape],
        "recovered": NotRequired[bool],
    },
)


class Position(PositionShape):
    type: Literal["position"]
    version: int


class NoticeParams(TypedDict):
    position: int
    ahead: int
    title: str
    estimatedWaitSeconds: int | None


class Notice(TypedDict):
    type: Literal["notice"]
    template: str
    itemId: str
    params: NoticeParams
    noticeId: str


class Ack(TypedDict):
    type: Literal["ack"]
    id: str
    item: WholeItem | None
    room: NotRequired[RoomShape]


class ErrorFrame(TypedDict):
    type: Literal["error"]
    id: str | None
    code: str
    detail: str
    problem: Problem


class Pong(TypedDict):
    type: Literal["pong"]
    serverTime: datetime


def welcome(role: str, sub: str | None, epoch: str, expires_at: datetime | None = None) -> bytes:
    frame: Welcome = {
        "type": "welcome",
        "role": role,
        "sub": sub,
        "epoch": epoch,
        "pingSeconds": PING_SECONDS,
        "retrySeconds": list(RETRY_SECONDS),
        "expiresAt": expires_at,
    }
    return encode(frame)


def snapshot_body(room: Room, epoch: str, view: View, version: int) -> bytes:
    """The middle part of a snapshot: room and items, the same for every socket of a view. `version`: the view's."""
    body = {"room": {**room_shape(room, epoch), "version": version}, "items": queue_items(room, view)}
    return encode(body)[1:-1]


def snapshot(
    room: Room, epoch: str, now: datetime, body: bytes, *, version: int, user_id: str | None = None
) -> tuple[bytes, bytes, bytes]:
    """A snapshot, in three parts to be joined; the second is `body`. `user_id`: the user whose items are `mine`."""
    beginning = {"type": "snapshot", "epoch": epoch, "version": version, "serverTime": now}
    end = {"mine": _my_items(room, user_id, now) if user_id is not None else [], "recovered": False}
    return encode(beginning)[:-1] + b",", body, b"," + encode(end)[1:]


def _my_items(room: Room, user_id: str, now: datetime) -> list[MyItem]:
    if not (mine := [item for item in room.items if item.user_id == user_id]):
        return []
    waits = room.waits(now)
    return [{**whole_item(item, room.position(item.item_id)), **position_shape(room, item, waits)} for item in mine]


def update(
    events: Sequence[Event],
    now: datetime,
    *,
    since: int,
    version: int,
    view: View,
    room: RoomShape | None = None,
    recovered: bool = False,
) -> bytes:
    """The frame from version `since` to `version`. `events`: those that the view shows. `room`: None if unchanged."""
    frame: Update = {
        "type": "update",
        "from": since,
        "version": version,
        "serverTime": now,
        "events": [_event(event, view) for event in events],
    }
    if room is not None:
        frame["room"] = {**room, "version": version}
    if recovered:
        frame["recovered"] = True
    return encode(frame)


_IN_THE_ITEM = frozenset({"title", "tokens", "sourceFeature", "position"})


def _event(event: Event, view: View) -> EventShape:
    """An event of an update. Its `params` leave out those that the item repeats and those that are 0 or empty."""
    shape = event_shape(event, view)
    shape["params"] = {name: value for name, value in shape["params"].items() if value and name not in _IN_THE_ITEM}
    return shape


def room_if_changed(before: Room, after: Room, epoch: str) -> RoomShape | None:
    """The room after, or None if it differs in nothing but `depth` and `version`: clients know these from the list of
    items and the frame."""
    room = room_shape(after, epoch)
    unchanged = {**room_shape(before, epoch), "depth": room["depth"], "version": room["version"]}
    return None if unchanged == room else room


def position(room: Room, item: Item, waits: Waits, version: int) -> bytes:
    """The owner's frame with an item's position. `version`: the one that the owner's socket holds."""
    frame: Position = {"type": "position", **position_shape(room, item, waits), "version": version}
    return encode(frame)


def notice(room: Room, item: Item, milestone: int, waits: Waits) -> bytes:
    """The owner's frame that says that an item has reached a milestone: one of the room's `notify_positions`."""
    shape = position_shape(room, item, waits)
    # The next to be served is at position 2 while somebody is on stage.
    place = max(milestone, shape["position"]) if milestone == NEXT_UP else milestone
    frame: Notice = {
        "type": "notice",
        "template": notice_template(milestone),
        "itemId": item.item_id,
        "params": {
            "position": place,
            "ahead": place - 1,
            "title": item.title,
            "estimatedWaitSeconds": shape["estimatedWaitSeconds"],
        },
        # The same id whichever process sends it, and however often: a client that gets it twice shows it once.
        "noticeId": f"{item.item_id}:{milestone}",
    }
    return encode(frame)


def ack(command_id: str, item: WholeItem | None, room: RoomShape | None = None) -> bytes:
    frame: Ack = {"type": "ack", "id": command_id, "item": item}
    if room is not None:
        frame["room"] = room
    return encode(frame)


def error(command_id: str | None, refusal: QueueError, item: WholeItem | None = None) -> bytes:
    frame: ErrorFrame = {
        "type": "error",
        "id": command_id,
        "code": refusal.code,
        "detail": refusal.detail,
        "problem": problem(refusal, item),
    }
    return encode(frame)


def pong(now: datetime) -> bytes:
    frame: Pong = {"type": "pong", "serverTime": now}
    return encode(frame)
