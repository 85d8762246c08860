"""Notes about endpoints, a bounded number of them: endpoints come and go, and nobody says which have gone for good."""

from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[str, str]
"""Owner and name of an endpoint."""

ENDPOINTS_REMEMBERED = 10_000


class Notes(Generic[T]):
    def __init__(self, most: int = ENDPOINTS_REMEMBERED) -> None:
        """Beyond `most` the one that was noted first is forgotten; it must be possible to do without."""
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
