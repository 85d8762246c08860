"""A socket in a room: its connection, its view of the room, and the group with which it gets frames."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.domain.command import Role
from app.domain.room import Room
from app.domain.view import View

Send = Callable[[bytes], int]


class Connection(Protocol):
    """A way to one client, to which complete frames are written.

    Whoever holds it calls `WatchedRoom.connection_changed` when `is_open`, `is_lagging` or `send_at_once` changes.
    """

    @property
    def is_open(self) -> bool: ...

    @property
    def is_lagging(self) -> bool: ...

    @property
    def deflates(self) -> bool:
        """Whether the client takes compressed frames. Does not change."""

    @property
    def send_at_once(self) -> Send:
        """Sends as much of a complete frame as it can and returns the number of bytes sent; the rest goes to `write`
        before anything else. Only for a connection that is open and does not lag. May raise OSError with nothing sent.
        """

    def write(self, data: bytes) -> None:
        """Sends a frame, or the rest of one, after the bytes that already wait."""

    def cut_off(self, code: int, reason: str) -> None:
        """Closes in bounded time, even if the client reads nothing."""


class Format(NamedTuple):
    """The form of a socket's frames."""

    view: View
    deflates: bool
    """The frames are compressed."""


@dataclass(eq=False, slots=True, kw_only=True)
class Subscriber:
    """A socket in a room, with the identity that it joined with."""

    connection: Connection
    close: Callable[[int, str], None]
    role: Role = Role.VIEWER
    sub: str | None = None
    view: View = View.PUBLIC
    lagging_since: float | None = None
    """Loop time at which it missed a frame that it could not take."""
    group: "Group | None" = field(init=False, default=None)
    """The group whose frames it gets, while it is in a room."""
    send: Send | None = field(init=False, default=None)
    """The function that sends it a frame at once, while it is in a room and can take one."""
    owner_id: str | None = field(init=False)
    """The user whose own items it gets; None if it is not a viewer with a token."""

    def __post_init__(self) -> None:
        self.owner_id = self.sub if self.role is Role.VIEWER else None

    @property
    def format(self) -> Format:
        return Format(self.view, self.connection.deflates)


@dataclass(eq=False, slots=True)
class Group:
    """Sockets of one format that hold the same version of their room."""

    format: Format
    room: Room
    """The room as its members know it, as far as they may see it."""
    version: int
    """The version that they hold: that of the last event up to `room` that they may see."""
    members: dict[Subscriber, None] = field(default_factory=dict)
    _ready: dict[Send, Subscriber] = field(default_factory=dict)
    """The members that can take a frame, by their `send`. Kept up to date as connections change: a broadcast only calls
    the functions, which saves a fifth of its CPU with 1,000 sockets (`bench --without ready`)."""

    @property
    def ready(self) -> int:
        """The number of members that can take a frame."""
        return len(self._ready)

    def add(self, subscriber: Subscriber) -> None:
        self.members[subscriber] = None
        subscriber.group = self
        self.review(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        del self.members[subscriber]
        subscriber.group = None
        self._send_by(None, subscriber)

    def review(self, subscriber: Subscriber) -> None:
        """Find out again whether a connection can take frames, and which function sends them."""
        connection = subscriber.connection
        takes = connection.is_open and not connection.is_lagging
        self._send_by(connection.send_at_once if takes else None, subscriber)

    def _send_by(self, send: Send | None, subscriber: Subscriber) -> None:
        if subscriber.send is not None:
            del self._ready[subscriber.send]
        if send is not None:
            self._ready[send] = subscriber
        subscriber.send = send

    def unready(self) -> list[Subscriber]:
        """The members that cannot take a frame."""
        # Saves a tenth of the CPU of a broadcast to 1,000 sockets (`bench --without unready`).
        if len(self._ready) == len(self.members):
            return []
        return [subscriber for subscriber in self.members if subscriber.send is None]

    def write(self, frame: bytes) -> int:
        """Send a frame to all members that can take it; returns their number."""
        size = len(frame)
        # A copy: a write may change its connection, and with it `_ready`.
        ready = list(self._ready)
        for send in ready:
            try:
                sent = send(frame)
            except OSError:
                sent = 0
            if sent != size:
                self._ready[send].connection.write(frame[sent:])
        return len(ready)

    def is_at(self, room: Room, version: int) -> bool:
        return self.room is room and self.version == version

    def take_over(self, other: "Group") -> None:
        """Take in the sockets of another group that is at the same room and version."""
        for subscriber in other.members:
            subscriber.group = self
        self.members |= other.members
        self._ready |= other._ready
        other.members, other._ready = {}, {}
