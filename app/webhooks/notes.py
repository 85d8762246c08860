"""A bounded cache of values by endpoint. It is bounded because it is not notified of deleted endpoints."""

from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[str, str]
"""Owner and name of an endpoint."""

ENDPOINTS_REMEMBERED = 10_000


class Notes(Generic[T]):
    def __init__(self, most: int = ENDPOINTS_REMEMBERED) -> None:
        """Beyond `most` entries the oldest is dropped; callers must be able to do without it."""
        self._most = most
        self._notes: dict[Key, T] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def get(self, key: Key) -> T | None:
        return self._notes.get(key)

    def put(self, key: Key, note: T) -> None:
        if key not in self._notes and len(self._notes) >= self._most:
            del self._notes[next(iter(self._notes))]
        self._notes[key] = note

    def drop(self, key: Key) -> None:
        self._notes.pop(key, None)
