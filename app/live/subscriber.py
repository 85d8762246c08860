"""A socket in a room, the line its frames take, and the groups in which sockets are told what happened."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from app.domain.command import Role
from app.domain.room import Room
from app.domain.view import View

Send = Callable[[bytes], int]


class Line(Protocol):
    """A way to one client: a connection that frames are written to directly, or ordinary ASGI sends.

    Whoever holds it tells the hub when `is_open`, `is_lagging` or `send_at_once` changes: `Hub.line_changed`.
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
        """Sends what it can of a complete frame, on a line that is open and does not lag, and returns how many bytes.
        What is left goes to `write` before anything else. May raise OSError, having sent nothing."""

    def write(self, data: bytes) -> None:
        """Sends a frame, or what was left of one, at once or in its turn."""

    def cut_off(self, code: int, reason: str) -> None: ...


@dataclass(eq=False, slots=True, kw_only=True)
class Subscriber:
    """A socket in a room: who looks through it and how far it is behind."""

    line: Line
    close: Callable[[int, str], None]
    role: Role = Role.VIEWER
    sub: str | None = None
    view: View = View.PUBLIC
    lagging_since: float | None = None
    """Loop time at which it missed a frame that it could not take."""
    group: "Group | None" = field(init=False, default=None)
    """With whom it is told, while it is in a room."""
    send: Send | None = field(init=False, default=None)
    """What sends it a frame at once, while it is in a room and can take one."""
    owner_id: str | None = field(init=False)
    """The user whose own items this socket is told about."""

    def __post_init__(self) -> None:
        self.owner_id = self.sub if self.role is Role.VIEWER else None


@dataclass(eq=False, slots=True)
class Group:
    """Sockets of one audience that are told the same at the same time, and so have all been shown the same version of
    their room."""

    LIMIT: ClassVar[int] = 50
    """Sockets written to before the event loop, and the lanes' threads, get a turn: a third of a millisecond. An intake
    needs four or five turns; with twice as many sockets in each, the slowest wait half as long again, for 2 % less
    CPU."""

    shown: Room
    """The room as its members know it, as far as they may see it."""
    version: int
    """What they hold: `shown`'s, less the last events that they may not see."""
    view: View
    deflates: bool
    """Whether they take compressed frames."""
    members: dict[Subscriber, None] = field(default_factory=dict)
    _ready: dict[Send, Subscriber] = field(default_factory=dict)
    """Of them, those that can take a frame, by what sends it. Kept as lines change: a broadcast, which is what a
    process does most, calls one after the other and looks at nobody."""

    @property
    def is_full(self) -> bool:
        return len(self.members) >= self.LIMIT

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
        """See anew whether, and how, a line can take frames."""
        line = subscriber.line
        self._send_by(line.send_at_once if line.is_open and not line.is_lagging else None, subscriber)

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
        # A list of its own: a line that changes by being written to changes what is ready.
        ready = list(self._ready)
        for send in ready:
            try:
                sent = send(frame)
            except OSError:
                sent = 0
            if sent != size:
                self._ready[send].line.write(frame[sent:])
        return len(ready)

    def has_place_for(self, other: "Group") -> bool:
        """Whether they may as well be one."""
        same = self.shown is other.shown and self.version == other.version
        return same and len(self.members) + len(other.members) <= self.LIMIT

    def take_over(self, other: "Group") -> None:
        """Take in the sockets of another, which `has_place_for` allows."""
        for subscriber in other.members:
            subscriber.group = self
        self.members |= other.members
        self._ready |= other._ready
        other.members, other._ready = {}, {}
