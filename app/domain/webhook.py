"""A webhook endpoint: a URL to which a feature, or the administrators, have the events of the log delivered.

Knows its status, its secrets and the time of its next attempt; never signs and never sends.
"""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from app.domain.event import EventName

ADMINISTRATORS = ""
"""The owner of the endpoints that belong to no feature. They get every event."""


class EndpointStatus(StrEnum):
    ACTIVE = "active"
    PARKED = "parked"
    """Given up after a day of failures, or after a 410 response, until it is resumed. No event is skipped."""


class Endpoint(Struct, frozen=True, kw_only=True):
    owner: str
    """The sourceFeature whose events it gets, or ADMINISTRATORS."""
    name: str
    url: str
    events: tuple[EventName, ...] | None
    """The events that it gets; None: all."""
    secret: str
    previous_secret: str | None = None
    """Also signs until `previous_secret_until`, so that the consumer has time to change its copy."""
    previous_secret_until: datetime | None = None
    status: EndpointStatus = EndpointStatus.ACTIVE
    cursor: str | None
    """The cursor of the last event that needs no delivery any more; None: the beginning of the log."""
    failures: int = 0
    """Consecutive failures."""
    failing_since: datetime | None = None
    next_attempt_at: datetime
    last_problem: str | None = None
    """Why the last attempt failed; it never contains a part of the response."""
    last_delivered_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    lease_until: datetime | None = None
    """Until when one process alone delivers to it. The value also identifies the claim."""

    def secrets(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign at this time, the newest first."""
        until = self.previous_secret_until
        if self.previous_secret is None or until is None or until <= now:
            return (self.secret,)
        return (self.secret, self.previous_secret)


class Delivery(Struct, frozen=True, kw_only=True):
    """One attempt to deliver one event."""

    message_id: str
    """The webhook-id: the same for every attempt, so that a consumer recognises a repeated event."""
    event: str
    performer_id: str | None
    version: int | None
    at: datetime
    milliseconds: int
    status_code: int | None
    """The status of the response; None: there was no response."""
    problem: str | None
    """Why the attempt failed; None: the event was delivered."""

    @property
    def is_delivered(self) -> bool:
        return self.problem is None
