"""The rooms that are held up, because another session keeps one of their rows locked. Each pauses for HELD_UP_SECONDS,
so that it does not delay the other rooms of its lane."""

from collections.abc import Callable
from time import monotonic

HELD_UP_SECONDS = 0.25
"""The pause of a room after a lock timeout: a lane spends at most a fifth of its time on one such room."""
FORGOTTEN_SECONDS = 60.0
"""The time after the pause after which a room is forgotten if no command has tried it again."""


class HeldUpRooms:
    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._retry_at: dict[str, float] = {}
        """By performer id, in the order in which they were added."""

    def __len__(self) -> int:
        return len(self._retry_at)

    def add(self, performer_id: str) -> None:
        """Begin a pause of the room."""
        now = self._now()
        # A room whose commands were given up may never get another one.
        for name, retry_at in list(self._retry_at.items()):
            if retry_at >= now - FORGOTTEN_SECONDS:
                break
            del self._retry_at[name]
        self._retry_at.pop(performer_id, None)
        self._retry_at[performer_id] = now + HELD_UP_SECONDS

    def drop(self, performer_id: str) -> None:
        """Forget a room that has been written."""
        self._retry_at.pop(performer_id, None)

    def retry_at(self, performer_id: str) -> float | None:
        """When the room may be tried again, by the clock `now`; None for a room that is not held up."""
        return self._retry_at.get(performer_id)
