"""A client of the live socket that keeps its state by the contract's rules and records every frame."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

WAIT_SECONDS = 10.0
"""How long a test waits for a frame that must come."""

Frame = dict[str, Any]
ACTIVE = ("created", "started")


class LiveSocket:
    """Reads a frame only when a test waits for it, and applies it to the state at once."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[Frame] = []
        self.texts: list[str] = []
        self.epoch = ""
        self.version = -1
        self.room: Frame = {}
        self.items: dict[str, Frame] = {}
        self.mine: dict[str, Frame] = {}
        """Own items in the last snapshot."""
        self.positions: dict[str, Frame] = {}
        """The last `position` frame of each own item since that snapshot."""
        self.gaps = 0
        """Updates that did not begin at the known version; each causes a resync."""
        self._ids = itertools.count(1)

    def continue_from(self, before: "LiveSocket") -> None:
        """Take over the state of a closed socket, to resume from there."""
        self.epoch, self.version, self.room = before.epoch, before.version, before.room
        self.items, self.mine, self.positions = dict(before.items), dict(before.mine), dict(before.positions)

    # Out

    async def send(self, frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def command(self, name: str, command_id: str | None = None, **fields: Any) -> Frame:
        """Send a command and read up to its ack or error."""
        sent = command_id or f"command-{next(self._ids)}"
        await self.send({"type": name, "id": sent, **fields})
        return await self.until(lambda frame: frame["type"] in ("ack", "error") and frame["id"] == sent)

    async def auth(self, token: str) -> Frame:
        """Authenticate; returns the snapshot that follows."""
        if not self.frames:
            await self.until("snapshot")
        await self.send({"type": "auth", "token": token})
        await self.until("welcome")
        return await self.until("snapshot")

    # In

    async def next(self, seconds: float = WAIT_SECONDS) -> Frame:
        async with asyncio.timeout(seconds):
            text = await self.connection.recv()
        assert isinstance(text, str), "every frame is text"
        frame: Frame = json.loads(text)
        self.texts.append(text)
        self.frames.append(frame)
        await self._fold(frame)
        return frame

    async def until(self, wanted: str | Callable[[Frame], bool]) -> Frame:
        """Read up to a frame of this type, or to one for which the predicate is true."""
        while True:
            frame = await self.next()
            if frame["type"] == wanted if isinstance(wanted, str) else wanted(frame):
                return frame

    async def until_state(self, holds: Callable[["LiveSocket"], bool]) -> None:
        """Read until `holds(self)`; returns at once if that is true already."""
        while not holds(self):
            await self.next()

    async def reach(self, version: int) -> None:
        """Read until the room has at least this version."""
        while self.version < version:
            await self.next()

    async def settled(self) -> None:
        """Read all frames that the server has sent so far. Frames arrive in order, so they end with the pong."""
        await self.send({"type": "ping"})
        await self.until("pong")

    async def closed(self) -> int:
        """Read to the end; returns the close code."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]

    # State

    def view(self) -> Frame:
        """The client's state: the room, and its items in order with their positions."""
        ordered = sorted(
            self.items.values(), key=lambda item: (item["status"] != "started", item["createdAt"], item["itemId"])
        )
        items = [{**item, "position": position} for position, item in enumerate(ordered, start=1)]
        return {"epoch": self.epoch, "version": self.version, "room": self.room, "items": items}

    async def _fold(self, frame: Frame) -> None:
        match frame["type"]:
            case "snapshot":
                self.epoch, self.version, self.room = frame["epoch"], frame["version"], frame["room"]
                self.items = {item["itemId"]: item for item in frame["items"]}
                self.mine = {item["itemId"]: item for item in frame["mine"]}
                self.positions = {}
            case "update" if frame["from"] == self.version:
                self._apply(frame)
            case "update" if frame["version"] > self.version:
                self.gaps += 1
                await self.send({"type": "resync"})
            case "position":
                self.positions[frame["itemId"]] = frame

    def _apply(self, update: Frame) -> None:
        for event in update["events"]:
            if event["item"] is None:
                continue
            if event["item"]["status"] in ACTIVE:
                self.items[event["itemId"]] = event["item"]
            else:
                self.items.pop(event["itemId"], None)
        self.version = update["version"]
        self.room = {**update.get("room", self.room), "depth": len(self.items), "version": self.version}


@asynccontextmanager
async def connected(
    url: str,
    token: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[LiveSocket]:
    """A connection to a live socket. `options` are those of websockets' `connect`."""
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    plain: dict[str, Any] = {
        "proxy": None,
        "compression": None,
        "ping_interval": None,
        "close_timeout": 5,
        "max_queue": None,  # unread frames must not stop the connection
        "max_size": None,
    }
    async with connect(url, additional_headers=sent, **{**plain, **options}) as connection:
        yield LiveSocket(connection)
