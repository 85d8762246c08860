"""The latest events of a watched room, kept for sockets that come back and for those that have not got them yet."""

from collections import deque
from collections.abc import Iterable, Sequence

from app.domain.event import Event


class RecentEvents:
    """Events up to a room's broadcast version, without a gap."""

    def __init__(self, kept: int) -> None:
        """`kept`: the number of events that stay at hand; more do while a socket has not got them."""
        self.kept = kept
        self._events: deque[Event] = deque()

    def extend(self, events: Iterable[Event]) -> None:
        self._events.extend(events)

    def last(self, count: int) -> list[Event]:
        """The latest `count` events, the oldest first."""
        return [self._events[at] for at in range(-count, 0)]

    def reach_back_to(self, version: int) -> bool:
        """Whether the event that follows a version is at hand."""
        return bool(self._events and self._events[0].version <= version + 1)

    def since(self, version: int, last: int, others: Sequence[Event]) -> list[Event] | None:
        """The events after `version` up to version `last`, from here and from `others`; None if one is missing."""
        known = {event.version: event for event in (*others, *self._events)}
        wanted = range(version + 1, last + 1)
        return [known[each] for each in wanted] if all(each in known for each in wanted) else None

    def forget(self, needed_after: int) -> None:
        """Drop the oldest events beyond `kept`, but none after version `needed_after`."""
        while len(self._events) > self.kept and self._events[0].version <= needed_after:
            self._events.popleft()
