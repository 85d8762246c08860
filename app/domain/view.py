"""How much of a room a caller may see."""

from enum import Enum, auto


class View(Enum):
    PUBLIC = auto()
    """The public shape of items, and no event that concerns money alone: anonymous viewers and other users."""
    FULL = auto()
    """Whole items and every event: the performer, the room's moderators and administrators."""
