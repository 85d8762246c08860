"""A client's state of a room, kept by the contract's rules, and its differences from the server's state.

It is written from the contract and not from the service's code, so that each can be checked against the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

Frame = Mapping[str, Any]

ACTIVE = ("created", "started")
PLACE = ("status", "position", "ahead")
"""The fields of an own item's position whose every change is sent to the owner. The others change with time."""


class Taken(Enum):
    """The result of receiving a frame."""

    SNAPSHOT = auto()
    APPLIED = auto()
    OLD = auto()
    GAP = auto()
    """The update does not begin at the known version: a snapshot is needed."""
    OTHER = auto()


@dataclass(slots=True)
class View:
    epoch: str | None = None
    version: int | None = None
    room: Mapping[str, Any] | None = None
    items: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    mine: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The owner's items and their positions, as last received."""

    def take(self, frame: Frame) -> Taken:
        match frame["type"]:
            case "snapshot":
                self.epoch = frame["epoch"]
                self.version = frame["version"]
                self.room = frame["room"]
                self.items = {item["itemId"]: item for item in frame["items"]}
                self.mine = {item["itemId"]: item for item in frame["mine"]}
                return Taken.SNAPSHOT
            case "update":
                return self._update(frame)
            case "position":
                if frame["status"] in ACTIVE:
                    self.mine[frame["itemId"]] = frame
                else:
                    self.mine.pop(frame["itemId"], None)
        return Taken.OTHER

    def _update(self, frame: Frame) -> Taken:
        if self.version is None:
            return Taken.GAP
        if frame["version"] <= self.version:
            return Taken.OLD
        if frame["from"] != self.version:
            return Taken.GAP
        for event in frame["events"]:
            item = event["item"]
            if item is None:
                continue
            if item["status"] in ACTIVE:
                self.items[item["itemId"]] = item
            else:
                self.items.pop(item["itemId"], None)
        self.version = frame["version"]
        self.room = {**frame.get("room", self.room or {}), "depth": len(self.items), "version": self.version}
        self.mine = {item_id: own for item_id, own in self.mine.items() if item_id in self.items}
        return Taken.APPLIED

    @property
    def queue(self) -> list[Mapping[str, Any]]:
        """The active items in the order in which they will be served, with positions from 1."""
        ordered = sorted(
            self.items.values(), key=lambda item: (item["status"] != "started", item["createdAt"], item["itemId"])
        )
        return [{**item, "position": position} for position, item in enumerate(ordered, start=1)]

    @property
    def on_stage(self) -> Mapping[str, Any] | None:
        return next((item for item in self.items.values() if item["status"] == "started"), None)

    def differences(self, truth: Mapping[str, Any]) -> list[str]:
        """Differences from a snapshot (or a queue read over HTTP) of the same version, as sentences with ids only."""
        return [*self._room_differences(truth["room"]), *self._queue_differences(truth["items"])] + (
            [*self._own_differences(truth["mine"])] if "mine" in truth else []
        )

    def differences_at_own_version(self, truth: Mapping[str, Any]) -> list[str]:
        """The same, without comparing versions."""
        return self.differences({**truth, "room": {**truth["room"], "version": self.version}})

    def _room_differences(self, room: Mapping[str, Any]) -> Iterator[str]:
        if wrong := _unequal(self.room or {}, room):
            yield f"room: {', '.join(wrong)} differ"

    def _queue_differences(self, items: list[Mapping[str, Any]]) -> Iterator[str]:
        seen = self.queue
        seen_ids, real_ids = [item["itemId"] for item in seen], [item["itemId"] for item in items]
        if seen_ids != real_ids:
            yield f"queue: seen {seen_ids}, is {real_ids}"
            return
        for known, real in zip(seen, items, strict=True):
            if wrong := _unequal(known, real):
                yield f"item {real['itemId']}: {', '.join(wrong)} differ"

    def _own_differences(self, mine: list[Mapping[str, Any]]) -> Iterator[str]:
        real = {item["itemId"]: item for item in mine}
        if self.mine.keys() != real.keys():
            yield f"own items: seen {sorted(self.mine)}, are {sorted(real)}"
            return
        for item_id, item in real.items():
            wrong = [name for name in PLACE if self.mine[item_id].get(name) != item.get(name)]
            if wrong:
                yield f"own item {item_id}: {', '.join(wrong)} differ"


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    absent = object()
    return sorted(name for name in one.keys() | other.keys() if one.get(name, absent) != other.get(name, absent))
