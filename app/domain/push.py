"""Push notifications (RFC 8030): the subscriptions of users' browsers, and the moments of an item that are notified.

Knows neither how a message is encrypted nor how it is sent.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

SUBSCRIPTIONS_OF_A_USER = 10
"""The most subscriptions of one user. One more removes the subscription that was renewed longest ago."""
STALE_AFTER = timedelta(days=90)
"""A subscription that no visit has renewed for this long is removed."""


class Language(StrEnum):
    """The languages of the notifications."""

    EN = "en"
    DE = "de"


class Moment(StrEnum):
    """The moments of an item's life of which its user is notified, each once."""

    NEXT = "next"
    STARTED = "started"
    ENDED = "ended"
    """Ended without being performed; the notification is about the tokens."""

    @property
    def lasts(self) -> timedelta:
        """How long it stays worth sending: neither this service nor a push service delivers it later."""
        return timedelta(hours=1) if self is Moment.ENDED else timedelta(minutes=2)


LONGEST_NEWS = max(moment.lasts for moment in Moment)


class Subscription(Struct, frozen=True, kw_only=True):
    """One browser of one user."""

    user_id: str
    name: str
    """Chosen by the browser; unique among the user's subscriptions."""
    endpoint: str
    """A URL of the browser's push service. It is never logged, since its holder can send to it."""
    origin: str
    """The origin of the endpoint's URL."""
    p256dh: str
    """The browser's public key (RFC 8291), in base64url."""
    auth: str
    """The secret that the browser shares with this service (RFC 8291), in base64url."""
    language: Language
    created_at: datetime
    renewed_at: datetime


class Notice(Struct, frozen=True, kw_only=True):
    """A moment of an item that is to be sent to one subscription."""

    item_id: str
    moment: Moment
    user_id: str
    name: str
    """The subscription's name."""
    performer_id: str
    expires_at: datetime
    attempts: int = 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.item_id, self.moment, self.user_id, self.name
