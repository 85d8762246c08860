"""The latest events of a watched room, kept for sockets that come back and for those that are still to be sent them."""

from collections import deque
from collections.abc import Iterable, Sequence

from app.domain.event import Event


class RecentEvents:
    """Events up to a room's broadcast version, without a gap."""

    def __init__(self, kept: int) -> None:
        """`kept`: so many stay at hand, or more while somebody has not been sent them."""
        self.kept = kept
        self._events: deque[Event] = deque()

    def extend(self, events: Iterable[Event]) -> None:
        self._events.extend(events)

    def last(self, count: int) -> list[Event]:
        return [self._events[at] for at in range(-count, 0)]

    def reach_back_to(self, version: int) -> bool:
        """Whether the event that follows a version is at hand."""
        return bool(self._events and self._events[0].version <= version + 1)

    def since(self, version: int, last: int, others: Sequence[Event]) -> list[Event] | None:
        """The events after a version up to the last one, from here and among `others`; None if one is missing."""
        known = {event.version: event for event in (*others, *self._events)}
        wanted = range(version + 1, last + 1)
        return [known[each] for each in wanted] if all(each in known for each in wanted) else None

    def forget(self, needed_after: int) -> None:
        """Drop what is too old, but nothing after the version that somebody is at."""
        while len(self._events) > self.kept and self._events[0].version <= needed_after:
            self._events.popleft()

    @property
    def are_many(self) -> bool:
        return len(self._events) > self.kept
