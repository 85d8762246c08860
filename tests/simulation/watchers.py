"""Clients of the live socket: each keeps its state by the contract's rules from the frames that a process's hub writes.

A panel is a client too; while it is connected its performer is present. Clients come back after a process has died, and
resume where they were.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from app.domain.command import Role
from app.domain.room import Room
from app.domain.view import View
from app.live.subscriber import Subscriber
from app.live.watched_room import WatchedRoom
from app.wire import frames
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

ACTIVE = ("created", "started")


class Line:
    """The connection to one client: its writes arrive, unless it lags."""

    deflates = False

    def __init__(self, watcher: "Watcher", process: Process) -> None:
        self._watcher = watcher
        self._process = process
        self.is_lagging = False
        self.is_cut = False

    @property
    def is_open(self) -> bool:
        return self._process.alive and not self.is_cut

    def send_at_once(self, frame: bytes) -> int:
        self.write(frame)
        return len(frame)

    def write(self, frame: bytes) -> None:
        if self.is_open:
            self._watcher.receive(orjson.loads(frame[{126: 4, 127: 10}.get(frame[1], 2) :]))

    def cut_off(self, code: int, reason: str) -> None:
        self.is_cut = True


class Watcher:
    def __init__(self, world: "World", performer_id: str, role: Role, sub: str | None) -> None:
        self._world = world
        self.performer_id = performer_id
        self.role = role
        self.sub = sub
        self.sees = View.PUBLIC if role is Role.VIEWER else View.FULL
        self.version = -1
        self._epoch = ""
        self._room: Mapping[str, Any] = {}
        self._items: dict[str, Mapping[str, Any]] = {}
        self._process: Process | None = None
        self._line: Line | None = None
        self._subscriber: Subscriber | None = None
        self._watched: WatchedRoom | None = None
        self._asks = False
        self._is_announced = False
        """Whether this panel's process counts it as present."""
        self._turns = asyncio.Lock()
        """A connection is one task: it leaves only after it has come."""

    @property
    def is_connected(self) -> bool:
        return self._line is not None and self._line.is_open

    # Coming and going

    async def connect(self, process: Process) -> None:
        """Join the room as `app.live.sockets` does, and resume if possible. Raises the refusal of the socket."""
        since = self.version if self._epoch == process.hub.epoch and self.version >= 0 else None
        line = Line(self, process)
        subscriber = Subscriber(
            connection=line, close=lambda code, reason: None, role=self.role, sub=self.sub, view=self.sees
        )
        self._process, self._line, self._subscriber, self._watched = process, line, subscriber, None

        async def join(process: Process) -> None:
            try:
                self._watched = await process.hub.join(self.performer_id, subscriber, since=since)
                if self.role is Role.PERFORMER:
                    self._is_announced = True
                    await process.presence.arrived(self.performer_id)
            except Exception:  # the socket's end, whatever it was
                await self._leave(process, line, subscriber)
                raise

        self._is_announced = False
        async with self._turns:
            await process.call(join, reliably=True)

    async def disconnect(self) -> None:
        """Raises what came in between."""
        async with self._turns:
            process, line, subscriber = self._process, self._line, self._subscriber
            if process is None or line is None or subscriber is None or not line.is_open:
                return
            await process.call(lambda process: self._leave(process, line, subscriber), reliably=True)

    async def _leave(self, process: Process, line: Line, subscriber: Subscriber) -> None:
        line.is_cut = True
        if self._watched is not None:
            process.hub.leave(self._watched, subscriber)
        if self._is_announced:
            self._is_announced = False
            await process.presence.left(self.performer_id)

    async def lag(self, seconds: float) -> None:
        line, subscriber, watched = self._line, self._subscriber, self._watched
        if line is None or subscriber is None or watched is None:
            return
        for is_lagging in (True, False):
            line.is_lagging = is_lagging
            if line.is_open:
                watched.connection_changed(subscriber)
            if is_lagging:
                await asyncio.sleep(seconds)

    # Frames

    def receive(self, frame: Mapping[str, Any]) -> None:
        match frame["type"]:
            case "snapshot":
                self._epoch, self.version, self._room = frame["epoch"], frame["version"], frame["room"]
                self._items = {item["itemId"]: item for item in frame["items"]}
                self._asks = False
            case "update" if frame["from"] == self.version:
                self._apply(frame)
            case "update" if frame["version"] > self.version and not self._asks:
                self._asks = True
                self._world.count("resync")
                process, watched, subscriber = self._process, self._watched, self._subscriber
                assert process is not None
                assert watched is not None
                process.later(0.05, watched.show, subscriber)

    def _apply(self, update: Mapping[str, Any]) -> None:
        for event in update["events"]:
            item = event["item"]
            if item is None:
                continue
            if item["status"] in ACTIVE:
                self._items[item["itemId"]] = item
            else:
                self._items.pop(item["itemId"], None)
        self.version = update["version"]
        self._room = {**update.get("room", self._room), "depth": len(self._items), "version": self.version}

    # The view

    def view(self) -> tuple[int, Mapping[str, Any], list[Mapping[str, Any]]]:
        ordered = sorted(
            self._items.values(), key=lambda item: (item["status"] != "started", item["createdAt"], item["itemId"])
        )
        return self.version, self._room, [{**item, "position": at} for at, item in enumerate(ordered, start=1)]

    def fresh_view(self, room: Room) -> tuple[int, Mapping[str, Any], list[Mapping[str, Any]]]:
        """A snapshot of the room at the version that this watcher holds."""
        body = frames.snapshot_body(room, self._epoch, self.sees, self.version)
        now = self._world.true_time()
        snapshot = orjson.loads(b"".join(frames.snapshot(room, self._epoch, now, body, version=self.version)))
        return snapshot["version"], snapshot["room"], snapshot["items"]
