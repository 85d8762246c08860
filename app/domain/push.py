"""Push notifications (RFC 8030): which browsers of a user want them, and the moments of an item that are told.

Knows neither how a message is encrypted nor how it is sent.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

SUBSCRIPTIONS_OF_A_USER = 10
"""Beyond it the one that was renewed longest ago goes."""
STALE_AFTER = timedelta(days=90)
"""A subscription that no visit has renewed for so long is removed."""


class Language(StrEnum):
    """The languages there are words in."""

    EN = "en"
    DE = "de"


class Moment(StrEnum):
    """The moments of an item's life that are notified, each once."""

    NEXT = "next"
    STARTED = "started"
    ENDED = "ended"
    """Without having been performed: it is about the tokens."""

    @property
    def lasts(self) -> timedelta:
        """How long it is news: neither we nor a push service hand it over later."""
        return timedelta(hours=1) if self is Moment.ENDED else timedelta(minutes=2)


LONGEST_NEWS = max(moment.lasts for moment in Moment)


class Subscription(Struct, frozen=True, kw_only=True):
    """One browser of one user."""

    user_id: str
    name: str
    """Chosen by the browser; unique among the user's."""
    endpoint: str
    """A URL of the browser's push service. Whoever has it can send: it is never logged."""
    origin: str
    """Of the endpoint."""
    p256dh: str
    """The browser's public key and, in `auth`, the secret that it shares with us (RFC 8291); base64url."""
    auth: str
    language: Language
    created_at: datetime
    renewed_at: datetime


class Notice(Struct, frozen=True, kw_only=True):
    """A moment of an item that one subscription is to be told."""

    item_id: str
    moment: Moment
    user_id: str
    name: str
    """Of the subscription."""
    performer_id: str
    expires_at: datetime
    attempts: int = 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.item_id, self.moment, self.user_id, self.name
