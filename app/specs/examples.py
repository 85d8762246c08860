"""An example of each request body, for the descriptions."""

from collections.abc import Mapping
from typing import Any

from app.wire.requests import (
    AbandonRequest,
    CompleteRequest,
    IntakeRequest,
    PushSubscriptionRequest,
    RefundRequest,
    Request,
    SettingsRequest,
    WebhookRequest,
)

EXAMPLES: Mapping[type[Request], dict[str, Any]] = {
    IntakeRequest: {
        "idempotencyKey": "spin-8812",
        "sourceFeature": "wheel",
        "sourceEventId": "spin-8812",
        "performerId": "mira",
        "userId": "ada",
        "escrowTransactionId": "escrow-4711",
        "tokens": 120,
        "title": "A song of your choice",
        "description": "The one about the sea, please",
        "durationSeconds": 180,
        "metadata": {"prize": 7},
    },
    CompleteRequest: {"refundTokens": 40},
    AbandonRequest: {"reason": "technical_error"},
    RefundRequest: {"reason": "user_cancelled"},
    SettingsRequest: {"accepting": False, "maxDepth": 20, "announcement": "Back in ten minutes"},
    PushSubscriptionRequest: {
        "endpoint": "https://push.example/send/f1x2",
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
        "language": "de",
    },
    WebhookRequest: {"url": "https://wheel.example/queue-events", "events": ["queue.item.finished"]},
}
