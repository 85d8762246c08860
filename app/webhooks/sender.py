"""Signs a message, sends it to one endpoint and returns the outcome. Keeps no state but its connections."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

from app.domain.webhook import Delivery, Endpoint
from app.webhooks import signing
from app.webhooks.posting import ATTEMPT_SECONDS, Posting
from app.webhooks.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A webhook as it is sent; `body` is JSON."""

    message_id: str
    event: str
    performer_id: str | None
    version: int | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    delivery: Delivery
    retry_after_seconds: float | None = None
    is_gone: bool = False
    """410: the endpoint wants no more (Standard Webhooks)."""


class Sender(Posting):
    """`async with` closes its connections."""

    def __init__(self, targets: Targets, clock: Callable[[], datetime]) -> None:
        super().__init__(targets)
        self._clock = clock

    async def send(self, endpoint: Endpoint, message: Message, *, seconds: float = ATTEMPT_SECONDS) -> Attempt:
        """One attempt. Anything but a 2xx within `seconds` is a failure."""
        at, began = self._clock(), perf_counter()
        headers = {
            "content-type": "application/json",
            **signing.headers(message.message_id, at, message.body, endpoint.secrets(at)),
        }
        answer = await self.post(endpoint.url, headers, message.body, seconds=seconds)
        delivery = Delivery(
            message_id=message.message_id,
            event=message.event,
            performer_id=message.performer_id,
            version=message.version,
            at=at,
            milliseconds=round((perf_counter() - began) * 1000),
            status_code=answer.status,
            problem=answer.problem,
        )
        return Attempt(delivery=delivery, retry_after_seconds=answer.retry_after_seconds, is_gone=answer.status == 410)
