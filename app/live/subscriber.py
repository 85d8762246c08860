"""A socket in a room: its connection, how much it sees of the room, and with which others it gets frames."""

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
        """The client takes compressed frames. Does not change."""

    @property
    def send_at_once(self) -> Send:
        """Sends what it can of a complete frame and returns how many bytes; the rest goes to `write` before anything
        else. Only for a connection that is open and does not lag. May raise OSError, having sent nothing."""

    def write(self, data: bytes) -> None:
        """Sends a frame, or the rest of one, at once or in its turn."""

    def cut_off(self, code: int, reason: str) -> None: ...


class Format(NamedTuple):
    """How frames are made for a socket."""

    view: View
    deflates: bool
    """Compressed."""


@dataclass(eq=False, slots=True, kw_only=True)
class Subscriber:
    """A socket in a room, as whoever it speaks for."""

    connection: Connection
    close: Callable[[int, str], None]
    role: Role = Role.VIEWER
    sub: str | None = None
    view: View = View.PUBLIC
    lagging_since: float | None = None
    """Loop time at which it missed a frame that it could not take."""
    group: "Group | None" = field(init=False, default=None)
    """Whose frames it gets, while it is in a room."""
    send: Send | None = field(init=False, default=None)
    """The function that sends it a frame at once, while it is in a room and can take one."""
    owner_id: str | None = field(init=False)
    """The user whose own items this socket is told about."""

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
    """Their version: `room`'s, less the last events that they may not see."""
    members: dict[Subscriber, None] = field(default_factory=dict)
    _ready: dict[Send, Subscriber] = field(default_factory=dict)
    """Of them, those that can take a frame, by what sends it. Kept as connections change: a broadcast calls one after
    the other and looks at nothing else."""

    @property
    def ready(self) -> int:
        """How many can take a frame."""
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
        """See anew whether, and how, a connection can take frames."""
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
        """Those that cannot take a frame."""
        if len(self._ready) == len(self.members):
            return []
        return [subscriber for subscriber in self.members if subscriber.send is None]

    def write(self, frame: bytes) -> int:
        """Send a frame to all that can take it; returns how many did."""
        size = len(frame)
        # A list of its own: a connection that changes by being written to changes what is ready.
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
