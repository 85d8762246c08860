"""A webhook endpoint: where a feature, or the administrators, want the events of the log to be delivered.

Knows its status, its secrets and when it is tried next; never signs and never sends.
"""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from app.domain.event import EventName

ADMINISTRATORS = ""
"""The owner of the endpoints that belong to no feature: they get every event."""


class EndpointStatus(StrEnum):
    ACTIVE = "active"
    PARKED = "parked"
    """Given up after a day of failures, or gone (410): it waits for somebody to resume it. Nothing is skipped."""


class Endpoint(Struct, frozen=True, kw_only=True):
    owner: str
    """The sourceFeature whose events it gets, or ADMINISTRATORS."""
    name: str
    url: str
    events: tuple[EventName, ...] | None
    """None: all."""
    secret: str
    previous_secret: str | None = None
    """Signs as well until `previous_secret_until`, so that a consumer can change its copy in between."""
    previous_secret_until: datetime | None = None
    status: EndpointStatus = EndpointStatus.ACTIVE
    cursor: str | None
    """Of the last event that needs no more delivery; None: the log's begin."""
    failures: int = 0
    """In a row."""
    failing_since: datetime | None = None
    next_attempt_at: datetime
    last_problem: str | None = None
    """Why the last attempt failed; never a part of an answer."""
    last_delivered_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    lease_until: datetime | None = None
    """Until when one process alone delivers to it; tells one claim from another."""

    def secrets(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign at this time, the newest first."""
        until = self.previous_secret_until
        if self.previous_secret is None or until is None or until <= now:
            return (self.secret,)
        return (self.secret, self.previous_secret)


class Delivery(Struct, frozen=True, kw_only=True):
    """One attempt to deliver one event."""

    message_id: str
    """The webhook-id: the same for every attempt, so a consumer can tell a repeated event."""
    event: str
    performer_id: str | None
    version: int | None
    at: datetime
    milliseconds: int
    status_code: int | None
    """None: there was no answer."""
    problem: str | None
    """None: delivered."""

    @property
    def is_delivered(self) -> bool:
        return self.problem is None
