"""The parts of push notifications. Without VAPID_PRIVATE_KEY there is no pusher, and none are sent."""

import secrets
from dataclasses import dataclass
from random import Random

from app.parts.foundation import Foundation
from app.push.encryption import Encryption
from app.push.pusher import Pusher
from app.push.subscriptions import PushSubscriptions
from app.settings import Environment, vapid_key
from app.webhooks.posting import Posting
from app.webhooks.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    subscriptions: PushSubscriptions
    posting: Posting
    pusher: Pusher | None


def open_push(base: Foundation) -> Push:
    settings = base.settings
    # The browser chooses its push service, so WEBHOOK_HOSTS cannot name it. Push services have public addresses.
    targets = Targets((), production=settings.environment is Environment.PRODUCTION)
    posting = Posting(targets)
    public_key, pusher = None, None
    if settings.vapid_private_key is not None and settings.vapid_subject is not None:
        key = vapid_key.read_private_key(settings.vapid_private_key)
        public_key = vapid_key.public_text(key)
        pusher = Pusher(
            queries=base.queries,
            lanes=base.lanes,
            posting=posting,
            encryption=Encryption(key, settings.vapid_subject),
            clock=base.clock,
            random=Random(),
            holder=secrets.token_hex(6),
        )
    subscriptions = PushSubscriptions(lanes=base.lanes, targets=targets, clock=base.clock, public_key=public_key)
    return Push(subscriptions=subscriptions, posting=posting, pusher=pusher)
