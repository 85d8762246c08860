"""A real hub for tests, with events of a real room, connections that only record, and a list in place of a database."""

import asyncio
import json
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.event import Event
from app.domain.item import Item
from app.domain.room import Room
from app.live.absent_rooms import AbsentRooms
from app.live.hub import Hub
from app.live.subscriber import Subscriber
from app.live.watched_room import Fanout, WatchedRoom
from tests.support.builders import NOON, PERFORMER, Stage

STAR = PERFORMER.id
Frame = dict[str, Any]
PLAIN, COMPRESSED = 0x81, 0xC1


def payload(frame: bytes) -> bytes:
    """The payload of a text frame, plain or compressed."""
    data = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    if frame[0] == PLAIN:
        return data
    assert frame[0] == COMPRESSED
    inflater = zlib.decompressobj(-12)
    return inflater.decompress(data + b"\x00\x00\xff\xff") + inflater.flush()


class FakeConnection:
    """A connection that records the frames that are written to it."""

    def __init__(self, *, is_open: bool = True, deflates: bool = False) -> None:
        self.deflates = deflates
        self._is_open = is_open
        self._is_lagging = False
        self.on_change: Callable[[], None] = lambda: None
        self.written: list[bytes] = []
        self.cut: list[tuple[int, str]] = []

    @property
    def is_open(self) -> bool:
        return self._is_open

    @is_open.setter
    def is_open(self, value: bool) -> None:
        self._is_open = value
        self.on_change()

    @property
    def is_lagging(self) -> bool:
        return self._is_lagging

    @is_lagging.setter
    def is_lagging(self, value: bool) -> None:
        self._is_lagging = value
        self.on_change()

    def send_at_once(self, frame: bytes) -> int:
        self.write(frame)
        return len(frame)

    def write(self, frame: bytes) -> None:
        assert self.is_open, "a frame was written to a closed connection"
        self.written.append(frame)

    def cut_off(self, code: int, reason: str) -> None:
        self.cut.append((code, reason))
        self.is_open = False

    @property
    def frames(self) -> list[Frame]:
        return [json.loads(payload(frame)) for frame in self.written]

    @property
    def sent(self) -> list[tuple[str, int]]:
        """The type and version of each frame; -1 for a frame without a version."""
        return [(frame["type"], frame.get("version", -1)) for frame in self.frames]


@dataclass
class World:
    """A hub over a `Stage`: decided events count as committed, and the test publishes them."""

    stage: Stage = field(default_factory=Stage)
    window: float = 0.0
    limits: dict[str, Any] = field(default_factory=dict)
    """Arguments of `Fanout` in place of its defaults."""
    loads: int = 0
    reads: list[int] = field(default_factory=list)
    may_load: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    closed: list[tuple[int, str]] = field(default_factory=list)
    room: WatchedRoom = field(init=False)
    """The room that the last subscriber has joined."""

    def __post_init__(self) -> None:
        self.may_load.set()
        fanout = Fanout(
            epoch="epoch-1",
            missed=self._missed,
            clock=lambda: NOON,
            coalesce_seconds=self.window,
            **self.limits,
        )
        absent = AbsentRooms(self._versions, self.stage.room.policy)
        self.hub = Hub(fanout, absent=absent, load=self._load)

    async def _versions(self, performer_ids: Collection[str]) -> dict[str, int]:
        """Every room exists, also an empty one; `test_absent_rooms` has the tests of absent rooms."""
        return dict.fromkeys(performer_ids, 1)

    async def _load(self, performer_id: str) -> Room:
        self.loads += 1
        room = self.stage.room
        await self.may_load.wait()
        if self.failure is not None:
            raise self.failure
        return room

    async def _missed(self, performer_id: str, after: int) -> Sequence[Event]:
        self.reads.append(after)
        return [event for event in self.stage.events if event.version > after]

    def subscriber(self, line: FakeConnection, **fields: Any) -> Subscriber:
        return Subscriber(connection=line, close=lambda code, reason: self.closed.append((code, reason)), **fields)

    async def join(self, line: FakeConnection, *, since: int | None = None, **fields: Any) -> Subscriber:
        subscriber = self.subscriber(line, **fields)
        self.room = room = await self.hub.join(STAR, subscriber, since=since)
        line.on_change = lambda: room.connection_changed(subscriber)
        return subscriber

    def show(self, subscriber: Subscriber) -> None:
        """Send a snapshot, as `resync` does."""
        self.room.show(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        self.hub.leave(self.room, subscriber)

    def intake(self, **fields: Any) -> Item:
        return self.stage.intake(**fields)

    def publish(self, *versions: int) -> None:
        """Publish the events of these versions, in this order; by default all events."""
        events = self.stage.events
        self.hub.publish(STAR, [events[version - 1] for version in versions] or events)


async def until(holds: Callable[[], bool]) -> None:
    """Let the hub work until `holds()`, 5 s at most."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a connection that only records gives no signal
            await asyncio.sleep(0)


async def rest() -> None:
    """Let all tasks run that can."""
    for _ in range(20):
        await asyncio.sleep(0)
