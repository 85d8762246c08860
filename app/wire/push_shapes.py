"""The JSON of push notifications: the service's key, and a browser's subscription."""

from datetime import datetime

from typing_extensions import TypedDict

from app.domain.push import Language, Subscription


class PushShape(TypedDict):
    publicKey: str | None
    """The `applicationServerKey` that browsers subscribe with; null: no push notifications are sent."""


class PushSubscriptionShape(TypedDict):
    """A subscription without its endpoint and keys, which would allow anybody to send to the browser."""

    name: str
    language: Language
    createdAt: datetime
    renewedAt: datetime


def push_subscription_shape(subscription: Subscription) -> PushSubscriptionShape:
    return {
        "name": subscription.name,
        "language": subscription.language,
        "createdAt": subscription.created_at,
        "renewedAt": subscription.renewed_at,
    }
