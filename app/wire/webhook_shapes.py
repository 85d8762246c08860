"""The JSON of webhook endpoints and their deliveries."""

from collections.abc import Sequence
from datetime import datetime
from typing import NotRequired

from typing_extensions import TypedDict

from app.domain.event import EventName
from app.domain.webhook import ADMINISTRATORS, Delivery, Endpoint, EndpointStatus


class WebhookShape(TypedDict):
    name: str
    sourceFeature: str | None
    """The feature whose events it gets; null: every event, for administrators."""
    url: str
    events: list[EventName] | None
    """null: all."""
    status: EndpointStatus
    failures: int
    """Failed attempts in a row."""
    failingSince: datetime | None
    nextAttemptAt: datetime | None
    """Null unless it is active and its last attempt failed."""
    lastProblem: str | None
    lastDeliveredAt: datetime | None
    createdAt: datetime
    updatedAt: datetime
    secret: NotRequired[str]
    """Present only if this request has created it."""


class WebhooksShape(TypedDict):
    webhooks: list[WebhookShape]


class DeliveryShape(TypedDict):
    webhookId: str
    event: str
    performerId: str | None
    version: int | None
    at: datetime
    milliseconds: int
    delivered: bool
    statusCode: int | None
    """null: there was no answer."""
    problem: str | None


class DeliveriesShape(TypedDict):
    deliveries: list[DeliveryShape]


def webhook_shape(endpoint: Endpoint, secret: str | None = None) -> WebhookShape:
    is_failing = endpoint.status is EndpointStatus.ACTIVE and endpoint.failures > 0
    shape: WebhookShape = {
        "name": endpoint.name,
        "sourceFeature": None if endpoint.owner == ADMINISTRATORS else endpoint.owner,
        "url": endpoint.url,
        "events": None if endpoint.events is None else list(endpoint.events),
        "status": endpoint.status,
        "failures": endpoint.failures,
        "failingSince": endpoint.failing_since,
        "nextAttemptAt": endpoint.next_attempt_at if is_failing else None,
        "lastProblem": endpoint.last_problem,
        "lastDeliveredAt": endpoint.last_delivered_at,
        "createdAt": endpoint.created_at,
        "updatedAt": endpoint.updated_at,
    }
    if secret is not None:
        shape["secret"] = secret
    return shape


def delivery_shape(delivery: Delivery) -> DeliveryShape:
    return {
        "webhookId": delivery.message_id,
        "event": delivery.event,
        "performerId": delivery.performer_id,
        "version": delivery.version,
        "at": delivery.at,
        "milliseconds": delivery.milliseconds,
        "delivered": delivery.is_delivered,
        "statusCode": delivery.status_code,
        "problem": delivery.problem,
    }


def deliveries_shape(deliveries: Sequence[Delivery]) -> DeliveriesShape:
    return {"deliveries": [delivery_shape(delivery) for delivery in deliveries]}
