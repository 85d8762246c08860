"""The operations on push subscriptions: a user's browser stores, renews and removes its own."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.domain.errors import FieldError, InvalidRequest, NotFound
from app.domain.push import Language, Subscription
from app.engine.lane import Lanes
from app.push.encryption import can_encrypt_for, origin_of, public_point, shared_secret
from app.store import push
from app.webhooks.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    subscription: Subscription
    is_new: bool


class PushSubscriptions:
    def __init__(
        self, *, lanes: Lanes, targets: Targets, clock: Callable[[], datetime], public_key: str | None
    ) -> None:
        """`public_key`: the key that browsers subscribe with; None: no notifications are sent."""
        self._lanes = lanes
        self._targets = targets
        self._clock = clock
        self.public_key = public_key

    async def store(
        self, user_id: str, name: str, *, endpoint: str, p256dh: str, auth: str, language: Language
    ) -> Stored:
        """Make a subscription or renew it. Raises NotFound where no notifications are sent, InvalidRequest for an
        endpoint that may not be called and for invalid keys."""
        if self.public_key is None:
            raise NotFound("This service sends no push notifications.")
        self._targets.check(endpoint, "endpoint")
        now = self._clock()
        subscription = Subscription(
            user_id=user_id,
            name=name,
            endpoint=endpoint,
            origin=origin_of(endpoint),
            p256dh=_valid("keys.p256dh", public_point(p256dh)),
            auth=_valid("keys.auth", shared_secret(auth)),
            language=language,
            created_at=now,
            renewed_at=now,
        )
        if not can_encrypt_for(subscription):
            raise _invalid("endpoint", "is not a URL")

        def write(connection: Connection) -> Stored:
            is_new = push.save_subscription(connection, subscription)
            found = push.find_subscription(connection, user_id, name)
            return Stored(subscription=found or subscription, is_new=is_new)

        return await self._lanes.run(write)

    async def delete(self, user_id: str, name: str) -> None:
        """Raises NotFound."""
        if not await self._lanes.run(lambda connection: push.delete_subscription(connection, user_id, name)):
            raise NotFound("There is no such push subscription.")


def _valid(field: str, key: str | None) -> str:
    if key is None:
        raise _invalid(field, "is not a key that a browser gives")
    return key


def _invalid(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"The request is not valid: {field} {problem}.", errors=[FieldError(field, problem)])
