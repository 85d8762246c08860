"""Rooms with a row that somebody else keeps locked: each is left alone for a moment, so that it holds up no other."""

from collections.abc import Callable
from time import monotonic

HELD_UP_SECONDS = 0.25
"""How long a room that has waited for a lock is not tried again: a lane spends at most a fifth of its time on it."""
FORGOTTEN_SECONDS = 60.0
"""After which a room for which no command has come any more is as any other."""


class HeldUpRooms:
    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._retry_at: dict[str, float] = {}
        """By performer id; the first is the one that was added first."""

    def __len__(self) -> int:
        return len(self._retry_at)

    def add(self, performer_id: str) -> None:
        now = self._now()
        # A room whose commands have been given up is perhaps never asked for again.
        for name, retry_at in list(self._retry_at.items()):
            if retry_at >= now - FORGOTTEN_SECONDS:
                break
            del self._retry_at[name]
        self._retry_at.pop(performer_id, None)
        self._retry_at[performer_id] = now + HELD_UP_SECONDS

    def drop(self, performer_id: str) -> None:
        self._retry_at.pop(performer_id, None)

    def retry_at(self, performer_id: str) -> float | None:
        """When it may be tried again; None for a room that is not held up."""
        return self._retry_at.get(performer_id)
